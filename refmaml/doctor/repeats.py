"""Repeated calls on the same inputs: noise, carried state, and memory that grows.

How many calls are made depends on `repeats` and on what the calls show, never on a
clock."""

import gc
import tracemalloc
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

WARM_UP = 2  # calls before growth counts: libraries fill their caches
COUNTED = 4  # calls in each of which memory must grow
SMALLEST_LEAK = 256  # bytes of arrays a call, or one parameter vector if that is smaller
OBJECTS = 512  # bytes of Python objects a call
CONFIRMING = 24  # further calls in each of which Python's objects must grow: see `growth`


class Repeats(NamedTuple):
    """What repeated calls on the same inputs showed.

    difference   max over calls of |g_i - g_1|, in multiples of what rounding allows
    identical    whether all bits agree
    drifts       whether answers move in one direction, as with carried state, and not
                 to and fro, as with noise; None: a single repeat cannot show it
    growth       by how much memory grows with every call: (number, unit), or None
    """

    difference: float
    identical: bool
    drifts: bool | None
    growth: tuple | None


def repeat(function, case, first, calls):
    """Call the UserFunction `calls` more times on one case.

    first   the Answer of the call before
    """
    # allocated beforehand, so that the memory counted below is the function's own
    grads, made = np.empty((1 + calls + CONFIRMING, len(first.grad))), 0
    grads[0] = first.grad

    def call():
        nonlocal made
        made += 1
        grads[made] = function.answer(case).grad

    with traced(function.lib.name):
        grown = growth(call, calls, memory_of(function.lib.name, case))
    grads = grads[: made + 1]
    difference = float(np.abs((grads - grads[0]) / case.allowed).max())
    identical = bool((grads == grads[0]).all())
    return Repeats(difference, identical, drifting(np.diff(grads, axis=0)), grown)


def drifting(steps):
    """Whether consecutive changes point the same way; None for fewer than two."""
    if len(steps) < 2:
        return None
    sizes = np.linalg.norm(steps, axis=1)
    if not sizes.all():
        return bool(sizes.any())  # it changed and then stayed, or the other way round
    cosines = (steps[1:] * steps[:-1]).sum(axis=1) / (sizes[1:] * sizes[:-1])
    return bool(cosines.mean() > 0)


# ---- memory --------------------------------------------------------------------------


class Memory(NamedTuple):
    """The kinds of memory that are counted for a framework, the exact ones first.

    units        of each kind
    least        of each kind, the growth a call that counts as a leak
    confirming   of each kind, the further calls through which the growth must go on
    read         () -> the amount of each kind now
    """

    units: tuple
    least: tuple
    confirming: tuple
    read: Any


def growth(call, calls, memory):
    """(growth a call, unit) of the first kind of memory that leaks, or None.

    call     call() calls the user's function once

    A leak grows in each of the last COUNTED calls by at least `least`. Python's objects
    also grow while the interpreter and compiled kernels fill their caches: measured
    with the cpu kernels, up to 4 KB a call, and by more than OBJECTS in at most 12
    calls one after another. So for them the growth must go on through CONFIRMING
    further calls; the first call that grows less ends the search. Arrays and tensors
    are counted exactly, and need no confirmation."""
    amounts = [memory.read()]

    def call_and_read():
        call()
        gc.collect()
        amounts.append(memory.read())
        return np.diff(amounts[-2:], axis=0)[0]

    for _ in range(calls):
        call_and_read()
    if calls < WARM_UP + COUNTED:
        return None
    last = np.diff(amounts[-COUNTED - 1 :], axis=0)
    for kind, (unit, least) in enumerate(zip(memory.units, memory.least, strict=True)):
        more = (call_and_read()[kind] for _ in range(memory.confirming[kind]))
        if (last[:, kind] >= least).all() and all(step >= least for step in more):
            return int(np.median(np.diff(amounts, axis=0)[-COUNTED:, kind])), unit
    return None


def memory_of(name, case):
    """The Memory that is counted for a framework."""
    if name == "torch":
        return Memory(("tensors",), (1,), (0,), lambda: (torch_tensors(),))
    if name == "jax":
        import jax

        return Memory(("arrays",), (1,), (0,), lambda: (len(jax.live_arrays()),))
    vector = len(case.meta) * np.dtype(case.dtype).itemsize
    least = min(SMALLEST_LEAK, vector)
    if name == "numpy":
        return Memory(("bytes", "bytes"), (least, OBJECTS), (0, CONFIRMING), python_bytes)
    import cupy

    pool = cupy.get_default_memory_pool()
    return Memory(
        ("bytes on the GPU", "bytes", "bytes"),
        (least, least, OBJECTS),
        (0, 0, CONFIRMING),
        lambda: (pool.used_bytes(), *python_bytes()),
    )


def torch_tensors():
    """How many tensors are alive."""
    import torch

    return sum(1 for o in gc.get_objects() if issubclass(type(o), torch.Tensor))


def python_bytes():
    """(bytes of NumPy's arrays, bytes of everything else that Python allocates).

    NumPy registers the memory of its arrays with tracemalloc in a domain of its own.
    """
    total = tracemalloc.get_traced_memory()[0]
    only = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([only]).traces
    arrays = sum(trace.size for trace in traces)
    return arrays, total - arrays


@contextmanager
def traced(name):
    """tracemalloc running inside the block, for the frameworks that need it."""
    start = name in ("numpy", "cupy") and not tracemalloc.is_tracing()
    if start:
        tracemalloc.start()
    try:
        yield
    finally:
        if start:
            tracemalloc.stop()
