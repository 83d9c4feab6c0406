"""Kernels one by one on the calls that nets make, every version of the products, in both precisions: how near to the device's limits.

A call is recorded on FEW tasks, and its real numbers are exchanged for noise: those of a net may add up to nothing but rounding, as the
adjoint of a bias before a batch-norm does, and no error could be told. It is grown to all tasks by repeating the few, so that the reference
has little to compute, and so that every task's result has to have the bits of the one it repeats.

    flop, bytes   what a call has to compute (products only) and to move, each array once
    floor         flop / the float32 or float64 roof, or bytes / the copy's rate: whichever takes longer. No kernel is faster, unless the
                  L2 holds what one launch reads twice
    fraction      floor / median
"""

import re
from functools import partial
from typing import NamedTuple

import numpy as np

from refmaml.bench.gpu.rotation import Rotation, rotated
from refmaml.bench.kernel_calls import examples, nets, record
from refmaml.bench.kernel_table import (
    chosen,
    copies,
    error_against,
    exact_of,
    filled_by,
    fused_functions,
    is_product,
    operations,
    reference_functions,
)
from refmaml.execution import Sequential
from refmaml.kernels import KernelSet, reference
from refmaml.kernels.cuda_runtime.source import source

FEW, TASKS = 2, 32
TIES = 32  # eps: how near the two largest of a window may be for a fused kernel, which rounds before it compares
DTYPES = ("float32", "float64")
LIBRARY = {"float32": "sgemm", "float64": "dgemm"}


class KernelRow(NamedTuple):
    """One kernel on one call. shape: of its largest array, of all tasks. bound: which roof its floor is, "flop" or "byte".

    error, tolerance  on the first tasks, relative, against the reference kernel in float64
    same              whether every task has the bits of the one it repeats
    of_library        of the rate of the library's matrix product; None for what is no product
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
    """A kernel that could not be run, and what was said."""

    net: str
    kernel: str
    version: int | None
    dtype: str
    reason: str
    right: bool = False


def nets_on_gpu():
    """The nets of the CPU's table, and the max-pool net on its support sets too, with 32 tasks."""
    found = nets()
    net, _, queries = found.pop("max-pool")
    sizes = {"max-pool, support": (net, TASKS, 5), "max-pool, query": (net, TASKS, queries)}
    return {
        name: (net, tasks if name == "sinusoid" else TASKS, count)
        for name, (net, tasks, count) in found.items()
    } | sizes


def versions(kernel):
    """The versions of a kernel that its CUDA text defines, the plainest first; [None] where there is only one."""
    if not kernel.startswith(("conv2d_", "linear_")):
        return [None]
    operation = kernel.partition("_")[0]
    return sorted(
        {int(n) for n in re.findall(rf"\b{operation}_\w+_v(\d+)\(", source(operation))}
    ) or [None]


def recorded(nets):
    """[(a call on FEW tasks, how many tasks it is grown to)] of {name: (net, tasks, examples)}."""
    rng = np.random.default_rng(0)
    return [
        (call._replace(arguments=tuple(noise(rng, a) for a in call.arguments)), tasks)
        for name, (net, tasks, count) in nets.items()
        for call in chosen(called(name, net, *examples(net, FEW, count)))
    ]


def called(name, net, x, y):
    """The calls of a net layer by layer; then those of kernels for several layers, where there are any."""
    calls, fused = record(name, net, x, y, reference()), fused_functions()
    if fused:
        from refmaml.execution.fusion import fused_layers

        kernels = KernelSet("fused", reference_functions())
        together = Sequential(
            fused_layers(net.layers, kernels), net.loss_function, net.input_shape, kernels
        )
        calls += [c for c in record(name, together, x, y, kernels) if c.kernel in fused]
    return calls


def noise(rng, a):
    """Normal numbers in place of an array's real ones, none below 0 where none were, as of a mean of squares; anything else as it is."""
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return a
    out = np.empty_like(a)  # the same order of memory
    out[...] = rng.standard_normal(a.shape, a.dtype)
    return np.abs(out, out=out) if (a >= 0).all() else out


def on_device(gpu, call, dtype):
    """The arguments as arrays of the device, in a precision."""
    return [gpu.bring(a) if isinstance(a, np.ndarray) else a for a in copies(call.arguments, dtype)]


def grown(xp, a, tasks):
    """An array of FEW tasks as one of `tasks`, the same ones again and again; anything else as it is."""
    if not hasattr(a, "shape") or len(a) != FEW or tasks == FEW:
        return a
    return xp.concatenate([a] * -(-tasks // FEW))[:tasks].copy()


def as_before(xp, a):
    """Whether every task of an array has the bits of the one it repeats."""
    return all(bool((bits(xp, a[t]) == bits(xp, a[t % FEW])).all()) for t in range(FEW, len(a)))


def bits(xp, a):
    """An array's numbers as integers, so that -0 is another than 0 and NaN the same as itself."""
    return xp.ascontiguousarray(a).view(np.dtype(f"i{a.itemsize}"))


def kernel_row(gpu, roofs, call, exact, tasks, version, dtype):
    """Time one version of a kernel, after its results were looked at."""
    kernel, filled, few = (
        gpu.kernel_set(version).functions[call.kernel],
        filled_by(call, exact),
        on_device(gpu, call, dtype),
    )
    kernel(*few)
    undecided = TIES * np.finfo(dtype).eps if call.kernel in fused_functions() else 0.0
    left = [gpu.fetch(a) if i in filled else None for i, a in enumerate(few)]
    error, limit = error_against(call, exact, left, np.dtype(dtype), undecided)
    arguments = [grown(gpu.xp, a, tasks) for a in on_device(gpu, call, dtype)]
    kernel(*arguments)
    same = all(as_before(gpu.xp, arguments[i]) for i in filled if len(exact[i]) == FEW)
    timing = rotated(gpu, kernel, arguments)
    scale = tasks / FEW
    flop, size = (
        int(scale * operations(call)) if is_product(call) else 0,
        sum(a.nbytes for a in arguments if isinstance(a, gpu.xp.ndarray)),
    )
    gflops, gbytes = flop / 1e9 / timing.seconds.median, size / 1e9 / timing.seconds.median
    of_flop, of_byte = gflops / roofs[dtype].rate, gbytes / roofs["copy"].rate
    largest = max((a for a in arguments if isinstance(a, gpu.xp.ndarray)), key=lambda a: a.size)
    return KernelRow(
        call.net,
        call.kernel,
        version,
        dtype,
        tasks,
        "x".join(map(str, largest.shape)),
        flop,
        size,
        timing,
        gflops,
        gbytes,
        "flop" if of_flop > of_byte else "byte",
        max(of_flop, of_byte),
        gflops / roofs[LIBRARY[dtype]].rate if flop else None,
        error,
        limit,
        same,
    )


def kernel_rows(gpu, roofs, calls):
    """Yields a KernelRow, or a Failed, for every version and precision of the `recorded` calls; ends where the device answers no more."""
    for call, tasks in calls:
        exact = exact_of(call)
        for dtype in DTYPES:
            for version in versions(call.kernel):
                yield attempt(
                    partial(kernel_row, gpu, roofs, call, exact, tasks, version, dtype),
                    Failed(call.net, call.kernel, version, dtype, ""),
                )
        try:
            gpu.release()
            gpu.wait()
        except (
            Exception
        ) as error:  # an access out of bounds leaves a device that answers nothing more
            yield Failed(
                call.net, call.kernel, None, "", f"the device answers no more: {said(error)}"
            )
            return


def attempt(measure, failed):
    """What was measured, or why not."""
    try:
        return measure()
    except Exception as error:  # whatever a driver or a compiler says
        return failed._replace(reason=said(error))


def said(error):
    return f"{type(error).__name__}: {error}".partition("\n")[0]
