"""A stand-in for a GPU: NumPy's arrays, given kernels, given times."""

from itertools import chain, repeat

import numpy as np

import refmaml as rm
from refmaml import kernels
from refmaml.bench.gpu import roofs
from refmaml.bench.kernel_table import reference_functions
from refmaml.bench.timing import spread

ABOUT = {
    "name": "stand-in",
    "compute_capability": (9, 0),
    "multiprocessors": 2,
    "l2_bytes": 4096,
    "memory_bytes": 1 << 30,
    "clock_khz": 1_000_000,
    "memory_clock_khz": 500_000,
    "memory_bus_bits": 64,
    "cuda_driver_api": 0,
    "cuda_runtime": 0,
    "cupy": "none",
}

# a net, tasks, examples
SMALL = {"small": (rm.conv4(n_way=3, channels=4, image=(1, 8, 8)), 6, 3)}
LIMITS = {
    name: roofs.Roof(rate, None, spread([1.0]))
    for name, rate in {
        "float32": 100.0,
        "float64": 50.0,
        "sgemm": 80.0,
        "dgemm": 90.0,
        "copy": 10.0,
    }.items()
}


class StandIn:
    """The interface of refmaml.bench.gpu.device.Gpu.

    kernel_sets  (version) -> a kernel set on NumPy's arrays
    seconds      the timings, in order; the last one is repeated
    """

    xp, l2 = np, ABOUT["l2_bytes"]

    def __init__(self, kernel_sets=None, seconds=(1e-3,), launched=lambda *launch: None):
        self.kernel_sets = kernel_sets or (lambda version: right_kernels())
        self.clock = chain(seconds, repeat(seconds[-1]))
        self.launch, self.runs = launched, 0

    def properties(self):
        return dict(ABOUT)

    def to_device(self, a):
        return a.copy()

    def to_host(self, a):
        return np.asarray(a)

    def kernel_set(self, version=None):
        return self.kernel_sets(version)

    def timings(self, run, count, graph=True):
        run()
        self.runs += 1
        return [next(self.clock) for _ in range(count)], graph

    def synchronize(self):
        pass

    def free_pool(self):
        pass


def right_kernels():
    """All reference kernels, fused ones included."""
    return kernels.KernelSet("cuda", reference_functions())


def named_cuda(kernel_set, **replaced):
    """A kernel set with the name cuda and some kernels replaced."""
    return kernel_set.replace("cuda", **replaced)


def wrong_by_a_thousandth(name):
    """The reference kernels, one of them with a relative error of 0.001."""
    right = right_kernels()

    def wrong(out, *rest):
        right.functions[name](out, *rest)
        out *= out.dtype.type(1.001)

    return named_cuda(right, **{name: wrong})


def changing(name, every=7):
    """The reference kernels, one with another last bit in every `every`-th call."""
    right, calls = right_kernels(), iter(range(10**9))

    def changed(out, *rest):
        right.functions[name](out, *rest)
        if next(calls) % every == every - 1:
            out[...] = np.nextafter(out, out.dtype.type(np.inf))

    return named_cuda(right, **{name: changed})
