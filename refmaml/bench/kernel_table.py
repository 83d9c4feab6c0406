"""Kernels one by one, on the very calls that nets make: how near to the machine's limits, and how far from the reference in float64.

convolutions and linear layers   10^9 operations a second, beside sgemm's
everything else                  10^9 bytes a second, each array argument counted once, beside a copy's. What stays in the caches
                                 from one call to the next may go beyond the memory's own rate.
a whole net                      one gradient, and one Hessian-vector product on it, beside sgemm's; by one kernel where the set has it
"""

from inspect import signature
from math import prod
from typing import NamedTuple

import numpy as np

from refmaml.bench import cost
from refmaml.bench.kernel_calls import examples, nets, record, weights
from refmaml.bench.timing import Spread, spread, turn
from refmaml.kernels import discovery, reference
from refmaml.oracles.tolerance import relative_error, tolerance

FLOP, BYTE = "flop", "byte"


class Row(NamedTuple):
    """One line of the table. rate: 10^9 operations (unit "flop") or bytes ("byte") a second; fraction of sgemm's or a copy's.

    error, tolerance  relative, against the reference kernel in float64 on the same arguments. A whole net has no tolerance: a
                      pre-activation that rounding pushes across 0 is no mistake.
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


def arguments_by_name(call):
    """{name in the reference kernel's signature: argument}."""
    return dict(
        zip(signature(reference_functions()[call.kernel]).parameters, call.arguments, strict=True)
    )


def reference_functions():
    """The reference kernels by name, and those of several layers at once that some sets have."""
    return dict(reference().functions) | fused_functions()


def fused_functions():
    """The reference kernels of several layers at once."""
    return discovery.collect("reference", discovery.fusions())[0]


def operations(call):
    """Operations of a convolution or linear kernel: 2 for each weight and each output it meets, twice that for a sum of two products."""
    named = arguments_by_name(call)
    y = next(named[name] for name in ("y", "dy", "ry") if name in named)
    w = next(named[name] for name in ("w", "dw", "rdw") if name in named)
    return 2 * y.size * prod(w.shape[2:]) * (2 if "_r_" in call.kernel else 1)


def is_product(call):
    return call.kernel.startswith(("conv2d_", "linear_"))


def moved(call):
    """Bytes of the arrays it reads or fills, each once."""
    return sum(a.nbytes for a in call.arguments if isinstance(a, np.ndarray))


def copies(arguments, dtype=None):
    """The arguments with arrays of their own, in the order of memory they have; real numbers in `dtype` where it is given."""

    def copy(a):
        real = dtype is not None and a.dtype.kind == "f"
        return a.astype(dtype, order="K") if real else a.copy(order="K")

    with np.errstate(invalid="ignore"):  # what is to be filled may hold anything
        return [copy(a) if isinstance(a, np.ndarray) else a for a in arguments]


def exact_of(call):
    """The arguments as the reference kernel leaves them in float64."""
    exact = copies(call.arguments, np.float64)
    reference_functions()[call.kernel](*exact)
    return exact


def filled_by(call, exact):
    """Which of the arguments it fills."""
    return [
        i
        for i, (e, a) in enumerate(zip(exact, call.arguments, strict=True))
        if isinstance(a, np.ndarray) and not np.array_equal(e, a)
    ]


def error_against(call, exact, fast, dtype=np.float32, undecided=0.0):
    """(the largest relative error of any array it fills, the tolerance in that precision); exact, fast: the arguments afterwards.

    undecided: the share of integers, who won a window, that may be others where values tie to within rounding
    """
    filled = filled_by(call, exact)
    outputs = min(exact[i].size for i in filled)
    inputs = sum(a.size for a in call.arguments if isinstance(a, np.ndarray))
    terms = operations(call) / 2 / outputs if is_product(call) else inputs / outputs
    return max(output_error(fast[i], exact[i], undecided) for i in filled), tolerance(dtype, terms)


def output_error(value, exact, undecided):
    """The relative error of one array; of integers none at all where so few are others."""
    if (
        exact.dtype.kind in "iu"
        and value.shape == exact.shape
        and np.mean(value != exact) <= undecided
    ):
        return 0.0
    return relative_error(value, exact)


def error_of(call, kernels):
    """The same of a kernel set on NumPy's arrays."""
    fast = copies(call.arguments)
    kernels.functions[call.kernel](*fast)
    return error_against(call, exact_of(call), fast)


def repeated(run, seconds):
    """The Spread of calls for so many seconds, after one that is not counted."""
    run()
    return spread(turn(run, seconds))


def row(call, kernels, limits, seconds):
    """The line of one call. limits: {"flop": sgemm's, "byte": a copy's}, 10^9 a second."""
    kernel, arguments = kernels.functions[call.kernel], copies(call.arguments)
    took = repeated(lambda: kernel(*arguments), seconds)
    unit, count = (FLOP, operations(call)) if is_product(call) else (BYTE, moved(call))
    rate = count / 1e9 / took.median
    largest = max((a for a in call.arguments if isinstance(a, np.ndarray)), key=lambda a: a.size)
    return Row(
        call.net,
        call.kernel,
        "x".join(map(str, largest.shape)),
        took,
        unit,
        rate,
        rate / limits[unit],
        *error_of(call, kernels),
    )


def chosen(calls):
    """Every shape of a convolution; of other kernels the call that moves most."""
    largest = {}
    for call in calls:
        if call.kernel not in largest or moved(call) > moved(largest[call.kernel]):
            largest[call.kernel] = call
    return [
        call for call in calls if call.kernel.startswith("conv2d_") or call is largest[call.kernel]
    ]


def whole_net(name, net, x, y, kernels, limits, seconds):
    """The lines of a gradient, and of a Hessian-vector product on top of one, of every task at weights of its own."""
    fast, w = net.with_kernels(kernels), weights(net, len(x))
    v, few = np.ones_like(w), slice(0, 2)
    primal = fast.primal(w, x, y)
    exact = net.primal(w[few].astype(np.float64), x[few].astype(np.float64), y[few])
    values = {
        "gradient": (primal.grad, exact.grad),
        "hvp": (fast.hvp(primal, v), net.hvp(exact, v[few].astype(np.float64))),
    }
    runs = {"gradient": lambda: fast.gradient(w, x, y), "hvp": lambda: fast.hvp(primal, v)}
    for quantity, run in runs.items():
        took = repeated(run, 5 * seconds)
        rate = getattr(cost, quantity)(net) * x.shape[0] * x.shape[1] / 1e9 / took.median
        fast_value, right = values[quantity]
        yield Row(
            name,
            quantity,
            f"{x.shape[0]} tasks of {x.shape[1]}",
            took,
            FLOP,
            rate,
            rate / limits[FLOP],
            relative_error(fast_value[few], right),
            None,
        )


def kernel_table(kernels, limits, seconds=0.1):
    """Yields a Row for each call chosen, and for each whole net."""
    for name, (net, tasks, count) in nets().items():
        x, y = examples(net, tasks, count)
        yield from whole_net(name, net, x, y, kernels, limits, seconds)
        for call in chosen(record(name, net, x, y, kernels)):
            yield row(call, kernels, limits, seconds)
