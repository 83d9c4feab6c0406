"""Kernels one by one on the calls that nets make: every version, in both precisions.

A call is recorded on FEW_TASKS tasks, and noise replaces its real numbers: those of a
net may sum to nothing but rounding (the adjoint of a bias before a batch-norm does),
and then no error could be measured. The call is extended to all tasks by repetition. So
the reference has little to compute, and every task must have the bits of the one it
repeats.

    flop, bytes  operations of a call (products only); bytes it moves, each array once
    floor        flop / the float32 or float64 roof, or bytes / the copy's rate, the
                 larger of both. No kernel is faster, unless the L2 cache holds what
                 one launch reads twice
    fraction     floor / median
"""

import re
from functools import partial
from typing import NamedTuple

import numpy as np

from refmaml.bench.gpu.rotation import Rotation, time_rotating
from refmaml.bench.kernel_calls import examples, nets, record_calls
from refmaml.bench.kernel_table import (
    compare_with_reference,
    copies,
    fused_functions,
    is_product,
    operations,
    output_indices,
    reference_functions,
    reference_results,
    select_calls,
)
from refmaml.execution import Sequential
from refmaml.kernels import KernelSet, reference
from refmaml.kernels.cuda_runtime.source import source

FEW_TASKS, TASKS = 2, 32
# In eps: how close the two largest values of a pooling window may be, so that a fused
# kernel, which rounds before it compares, may choose the other one.
TIES = 32
DTYPES = ("float32", "float64")
LIBRARY = {"float32": "sgemm", "float64": "dgemm"}


class KernelRow(NamedTuple):
    """One kernel on one call.

    shape             of its largest array, all tasks included
    bound             the roof that is its floor: "flop" or "byte"
    of_library        the fraction of the library's matrix product; None if not a
                      product
    error, tolerance  on the first tasks, relative, against the reference in float64
    same              whether every task has the bits of the one it repeats
    """

    net: str
    kernel: str
    version: int | None
    dtype: str
    tasks: int
    shape: str
    flop: int
    bytes: int
    timing: Rotation
    gflops: float
    gbytes: float
    bound: str
    fraction: float
    of_library: float | None
    error: float
    tolerance: float
    same: bool

    @property
    def right(self):
        return bool(self.error <= self.tolerance and self.same)


class Failed(NamedTuple):
    """A kernel that could not be run, and the error."""

    net: str
    kernel: str
    version: int | None
    dtype: str
    reason: str
    right: bool = False


# ---- calls ----


def nets_on_gpu():
    """The nets of the CPU's table with 32 tasks; the max-pool net on both sets."""
    found = nets()
    pool, _, queries = found.pop("max-pool")
    sizes = {
        name: (net, tasks if name == "sinusoid" else TASKS, count)
        for name, (net, tasks, count) in found.items()
    }
    return sizes | {
        "max-pool, support": (pool, TASKS, 5),
        "max-pool, query": (pool, TASKS, queries),
    }


def versions(kernel):
    """Versions of a kernel in its CUDA source, the simplest first; or [None]."""
    if not kernel.startswith(("conv2d_", "linear_")):
        return [None]
    operation = kernel.partition("_")[0]
    numbers = re.findall(rf"\b{operation}_\w+_v(\d+)\(", source(operation))
    return sorted({int(n) for n in numbers}) or [None]


def recorded_calls(nets):
    """[(a call on FEW_TASKS tasks, the number of tasks to extend it to)].

    nets  {name: (net, tasks, examples)}
    """
    rng = np.random.default_rng(0)
    return [
        (call._replace(arguments=tuple(noise(rng, a) for a in call.arguments)), tasks)
        for name, (net, tasks, count) in nets.items()
        for call in select_calls(calls_of_net(name, net, *examples(net, FEW_TASKS, count)))
    ]


def calls_of_net(name, net, x, y):
    """The calls of a net layer by layer, then those of fused kernels, if any."""
    calls, fused = record_calls(name, net, x, y, reference()), fused_functions()
    if fused:
        from refmaml.execution.fusion import fused_layers

        kernels = KernelSet("fused", reference_functions())
        layers = fused_layers(net.layers, kernels)
        fused_net = Sequential(layers, net.loss_function, net.input_shape, kernels)
        calls += [c for c in record_calls(name, fused_net, x, y, kernels) if c.kernel in fused]
    return calls


def noise(rng, a):
    """Normal numbers in place of a real array's; any other argument unchanged.

    An array without negative numbers, such as a mean of squares, gets none either.
    """
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return a
    out = np.empty_like(a)  # in the same memory order
    out[...] = rng.standard_normal(a.shape, a.dtype)
    return np.abs(out, out=out) if (a >= 0).all() else out


def arguments_on_device(gpu, call, dtype):
    """The arguments with arrays of the device, real ones in `dtype`."""
    return [
        gpu.to_device(a) if isinstance(a, np.ndarray) else a for a in copies(call.arguments, dtype)
    ]


def repeat_tasks(xp, a, tasks):
    """An array of FEW_TASKS tasks repeated to `tasks`; any other argument unchanged."""
    if not hasattr(a, "shape") or len(a) != FEW_TASKS or tasks == FEW_TASKS:
        return a
    return xp.concatenate([a] * -(-tasks // FEW_TASKS))[:tasks].copy()


def tasks_agree(xp, a):
    """Whether every task of an array has the bits of the one it repeats."""
    return all(
        bool((bits(xp, a[t]) == bits(xp, a[t % FEW_TASKS])).all()) for t in range(FEW_TASKS, len(a))
    )


def bits(xp, a):
    """An array's numbers as integers: -0 differs from 0, and NaN equals itself."""
    return xp.ascontiguousarray(a).view(np.dtype(f"i{a.itemsize}"))


# ---- rows ----


def kernel_row(gpu, roofs, call, exact, tasks, version, dtype):
    """The KernelRow of one version: its results are checked, then it is timed."""
    kernel, xp = gpu.kernel_set(version).functions[call.kernel], gpu.xp
    outputs = output_indices(call, exact)
    error, tolerance = few_tasks_error(gpu, kernel, call, exact, outputs, dtype)
    arguments = [repeat_tasks(xp, a, tasks) for a in arguments_on_device(gpu, call, dtype)]
    kernel(*arguments)
    same = all(tasks_agree(xp, arguments[i]) for i in outputs if len(exact[i]) == FEW_TASKS)
    timing = time_rotating(gpu, kernel, arguments)
    arrays = [a for a in arguments if isinstance(a, xp.ndarray)]
    flop = int(tasks / FEW_TASKS * operations(call)) if is_product(call) else 0
    size, largest = sum(a.nbytes for a in arrays), max(arrays, key=lambda a: a.size)
    gflops, gbytes = flop / 1e9 / timing.seconds.median, size / 1e9 / timing.seconds.median
    of_flop, of_byte = gflops / roofs[dtype].rate, gbytes / roofs["copy"].rate
    return KernelRow(
        call.net,
        call.kernel,
        version,
        dtype,
        tasks,
        shape="x".join(map(str, largest.shape)),
        flop=flop,
        bytes=size,
        timing=timing,
        gflops=gflops,
        gbytes=gbytes,
        bound="flop" if of_flop > of_byte else "byte",
        fraction=max(of_flop, of_byte),
        of_library=gflops / roofs[LIBRARY[dtype]].rate if flop else None,
        error=error,
        tolerance=tolerance,
        same=same,
    )


def few_tasks_error(gpu, kernel, call, exact, outputs, dtype):
    """(error, tolerance) of a kernel on the recorded tasks."""
    arguments = arguments_on_device(gpu, call, dtype)
    kernel(*arguments)
    undecided = TIES * np.finfo(dtype).eps if call.kernel in fused_functions() else 0.0
    results = [gpu.to_host(a) if i in outputs else None for i, a in enumerate(arguments)]
    return compare_with_reference(call, exact, results, np.dtype(dtype), undecided)


def kernel_rows(gpu, roofs, calls):
    """Yields a KernelRow or a Failed for each version and precision of recorded calls.

    Ends when the device no longer answers.
    """
    for call, tasks in calls:
        exact = reference_results(call)
        for dtype in DTYPES:
            for version in versions(call.kernel):
                yield failed_on_error(
                    partial(kernel_row, gpu, roofs, call, exact, tasks, version, dtype),
                    Failed(call.net, call.kernel, version, dtype, ""),
                )
        try:
            gpu.free_pool()
            gpu.synchronize()
        except Exception as error:  # after an access out of bounds, every call fails
            reason = f"the device no longer answers: {error_line(error)}"
            yield Failed(call.net, call.kernel, None, "", reason)
            return


def failed_on_error(measure, failed):
    """measure(), or `failed` with the error as its reason."""
    try:
        return measure()
    except Exception as error:  # any error of a driver or a compiler
        return failed._replace(reason=error_line(error))


def error_line(error):
    """The type of an exception and its first line."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]
