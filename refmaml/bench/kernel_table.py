"""Kernels one by one, on the calls that nets make: rates, and errors in float32.

convolutions, linear layers  10^9 operations a second, relative to sgemm's rate
all other kernels            10^9 bytes a second, each array argument counted once,
                             relative to a copy's rate. Data that stays in the caches
                             between calls can exceed the memory's rate
a whole net                  one gradient, and one Hessian-vector product on its primal
                             pass, relative to sgemm's rate; by one kernel if the set
                             has it

Errors are relative to the reference kernel in float64 on the same arguments.
"""

from inspect import signature
from math import prod
from typing import NamedTuple

import numpy as np

from refmaml.bench import flops
from refmaml.bench.kernel_calls import examples, nets, record_calls, weights
from refmaml.bench.timing import Spread, spread, turn
from refmaml.kernels import discovery, reference
from refmaml.oracles.tolerance import relative_error, tolerance

FLOP, BYTE = "flop", "byte"


class Row(NamedTuple):
    """One line of the table.

    shape      of the largest array
    unit       "flop": rate is 10^9 operations a second; "byte": 10^9 bytes a second
    fraction   of sgemm's rate, or of a copy's
    error      relative, against the reference kernel in float64 on the same arguments
    tolerance  None for a whole net: a pre-activation that rounding moves across 0 is no
               mistake
    """

    net: str
    kernel: str
    shape: str
    seconds: Spread
    unit: str
    rate: float
    fraction: float
    error: float
    tolerance: float


# ---- the reference, operations and bytes of a call ----


def reference_functions():
    """{name: reference kernel}, fused kernels of several layers included."""
    return dict(reference().functions) | fused_functions()


def fused_functions():
    """The reference kernels of several layers at once."""
    return discovery.collect("reference", discovery.fusions())[0]


def arguments_by_name(call):
    """{name in the reference kernel's signature: argument}; no defaults."""
    return signature(reference_functions()[call.kernel]).bind(*call.arguments).arguments


def is_product(call):
    """Whether the kernel is of a convolution or a linear layer."""
    return call.kernel.startswith(("conv2d_", "linear_"))


def operations(call):
    """Operations of a convolution or linear kernel.

    A product has 2 for each pair of a weight and an output that it contributes to. A
    sum of two products has twice as many.
    """
    named = arguments_by_name(call)
    y = next(named[name] for name in ("y", "dy", "ry") if name in named)
    w = next(named[name] for name in ("w", "dw", "rdw") if name in named)
    return 2 * y.size * prod(w.shape[2:]) * (2 if "_r_" in call.kernel else 1)


def bytes_moved(call):
    """Bytes of the arrays that a call reads or fills, each once."""
    return sum(a.nbytes for a in call.arguments if isinstance(a, np.ndarray))


# ---- errors ----


def copies(arguments, dtype=None):
    """The arguments with copies of the arrays, in the same memory order.

    dtype  of the real arrays in the copy; None: unchanged
    """

    def copy(a):
        real = dtype is not None and a.dtype.kind == "f"
        return a.astype(dtype, order="K") if real else a.copy(order="K")

    # An output array may hold any bits before the call.
    with np.errstate(invalid="ignore"):
        return [copy(a) if isinstance(a, np.ndarray) else a for a in arguments]


def reference_results(call):
    """The arguments after the reference kernel has run on them in float64."""
    exact = copies(call.arguments, np.float64)
    reference_functions()[call.kernel](*exact)
    return exact


def output_indices(call, exact):
    """Indices of the arguments that the call fills."""
    return [
        i
        for i, (e, a) in enumerate(zip(exact, call.arguments, strict=True))
        if isinstance(a, np.ndarray) and not np.array_equal(e, a)
    ]


def compare_with_reference(call, exact, fast, dtype=np.float32, undecided=0.0):
    """(the largest relative error of any output, the tolerance in `dtype`).

    exact, fast  the arguments after the reference and after the kernel
    undecided    the share of integer outputs, the winners of pooling windows, that may
                 differ: values that tie to within rounding
    """
    outputs = output_indices(call, exact)
    smallest = min(exact[i].size for i in outputs)
    inputs = sum(a.size for a in call.arguments if isinstance(a, np.ndarray))
    terms = operations(call) / 2 / smallest if is_product(call) else inputs / smallest
    error = max(output_error(fast[i], exact[i], undecided) for i in outputs)
    return error, tolerance(dtype, terms)


def output_error(value, exact, undecided):
    """The relative error of one output; 0 for integers if few enough differ."""
    is_integer = exact.dtype.kind in "iu" and value.shape == exact.shape
    if is_integer and np.mean(value != exact) <= undecided:
        return 0.0
    return relative_error(value, exact)


def kernel_error(call, kernels):
    """compare_with_reference for a kernel set on NumPy arrays."""
    fast = copies(call.arguments)
    kernels.functions[call.kernel](*fast)
    return compare_with_reference(call, reference_results(call), fast)


# ---- rows of the table ----


def timed(run, seconds):
    """The Spread of repeated calls, after one call that is not counted."""
    run()
    return spread(turn(run, seconds))


def measure_call(call, kernels, limits, seconds):
    """The Row of one call.

    limits  {"flop": sgemm's rate, "byte": a copy's rate}, 10^9 a second
    """
    kernel, arguments = kernels.functions[call.kernel], copies(call.arguments)
    times = timed(lambda: kernel(*arguments), seconds)
    unit, count = (FLOP, operations(call)) if is_product(call) else (BYTE, bytes_moved(call))
    rate = count / 1e9 / times.median
    largest = max((a for a in call.arguments if isinstance(a, np.ndarray)), key=lambda a: a.size)
    shape = "x".join(map(str, largest.shape))
    fraction = rate / limits[unit]
    error, limit = kernel_error(call, kernels)
    return Row(call.net, call.kernel, shape, times, unit, rate, fraction, error, limit)


def select_calls(calls):
    """All calls of convolutions; of every other kernel that with the most bytes."""
    largest = {}
    for call in calls:
        if call.kernel not in largest or bytes_moved(call) > bytes_moved(largest[call.kernel]):
            largest[call.kernel] = call
    return [
        call for call in calls if call.kernel.startswith("conv2d_") or call is largest[call.kernel]
    ]


def measure_net(name, net, x, y, kernels, limits, seconds):
    """Yields the Rows of a gradient and of a Hessian-vector product, all tasks at once.

    Weights differ between tasks. Errors are those of the first two tasks.
    """
    fast, w = net.with_kernels(kernels), weights(net, len(x))
    v, few = np.ones_like(w), slice(0, 2)
    primal = fast.primal(w, x, y)
    exact = net.primal(w[few].astype(np.float64), x[few].astype(np.float64), y[few])
    values = {
        "gradient": (primal.grad, exact.grad),
        "hvp": (fast.hvp(primal, v), net.hvp(exact, v[few].astype(np.float64))),
    }
    runs = {"gradient": lambda: fast.gradient(w, x, y), "hvp": lambda: fast.hvp(primal, v)}
    shape = f"{x.shape[0]} tasks of {x.shape[1]}"
    for quantity, run in runs.items():
        times = timed(run, 5 * seconds)
        rate = getattr(flops, quantity)(net) * x.shape[0] * x.shape[1] / 1e9 / times.median
        value, reference_value = values[quantity]
        error = relative_error(value[few], reference_value)
        yield Row(name, quantity, shape, times, FLOP, rate, rate / limits[FLOP], error, None)


def kernel_table(kernels, limits, seconds=0.1):
    """Yields a Row for each whole net, then for each of its selected calls."""
    for name, (net, tasks, count) in nets().items():
        x, y = examples(net, tasks, count)
        yield from measure_net(name, net, x, y, kernels, limits, seconds)
        for call in select_calls(record_calls(name, net, x, y, kernels)):
            yield measure_call(call, kernels, limits, seconds)
