"""Calling the user's function: once, and again and again, and on one task after another."""

import gc
import inspect
import traceback
import tracemalloc
from time import perf_counter
from typing import NamedTuple

import numpy as np

from refmaml.doctor.frameworks import first_line, outgoing, watched
from refmaml.doctor.returns import read
from refmaml.errors import ArgumentError, expect

SETTLING, COUNTED, LEAK = (
    2,
    4,
    256,
)  # calls before memory is looked at, calls it must grow in each of, bytes that count
PATIENCE = 6.0  # seconds after which a function is not asked again
MOVES = 3  # draws of another point, of which the one farthest from a kink is asked


class UserFunction:
    """The user's function with all it takes to call it: its framework, its layout, whether it is told the problem."""

    def __init__(self, fn, lib, layout):
        expect(
            callable(fn),
            "fn",
            "a function fn(problem, params, batch) or fn(params, batch)",
            lambda: type(fn).__name__,
        )
        self.fn, self.lib, self.layout, self.told = fn, lib, layout, takes(fn) == 3

    def answer(self, case):
        """The Answer on a case. Raises ArgumentError in one line where there is none."""
        with self.lib.scope():
            problem, params, batch = outgoing(case, self.lib, self.layout)
            arguments = (problem, params, batch) if self.told else (params, batch)
            with watched(self.lib, params, batch):
                try:
                    value = self.fn(*arguments)
                except (Exception, SystemExit) as error:
                    raise ArgumentError(
                        f"function: expected a gradient on the {case.name} probe, got {first_line(error)}"
                        f"{place(error)}"
                    ) from error
            return read(value, case, self.layout)

    def alone(self, case):
        """The mean over tasks of the gradients that come back for one task at a time (M,)."""
        return np.mean(
            [
                self.answer(case.with_(batch=case.batch[t : t + 1])).grad
                for t in range(len(case.batch))
            ],
            axis=0,
        )


def elsewhere(examinee, case):
    """(case, Answer) on a user's own net at other parameters and tasks: each number up to a tenth away, kinks as far as in MOVES draws."""
    rng = np.random.default_rng(0)
    there = max(
        (case.nearby(rng, 0.1) for _ in range(MOVES)), key=lambda other: other.margin
    ).rounded(case.dtype)
    return there, examinee.answer(there)


def takes(fn):
    """2 or 3: how many positional arguments the function takes. Raises ArgumentError for another number."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin, or a compiled function without a signature
        return 3
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return 3
    needed = sum(p.default is p.empty for p in positional)
    if needed in (2, 3):  # what has a default keeps it
        return needed
    if needed < 2 and len(positional) in (2, 3):
        return len(positional)
    raise ArgumentError(
        f"fn: expected a function of (problem, params, batch) or (params, batch), got one of {len(positional)} arguments"
    )


def place(error):
    """Where in the user's own file an exception arose."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "refmaml/doctor" not in f.filename.replace("\\", "/")
    ]
    return f" ({frames[0].filename}:{frames[0].lineno})" if frames else ""


class Repeated(NamedTuple):
    """What calling the function again on the same inputs showed.

    apart        max over calls of |g_i - g_1| in multiples of what rounding allows; identical: whether all bits agree
    drifts       whether it moves on from call to call, as a carried state does, rather than to and fro, as noise does; None: one more call
                 does not tell
    grows        what memory grows by with every call: (number, unit), or None
    """

    apart: float
    identical: bool
    drifts: bool | None
    grows: tuple | None


def repeat(examinee, case, first, calls):
    """Call the function up to `calls` more times on one case, as long as PATIENCE lasts; first: what it answered already."""
    grads, held, started_at = [first.grad], [], perf_counter()
    measure, unit = memory(examinee.lib.name)
    started = unit == "bytes" and not tracemalloc.is_tracing()
    if started:
        tracemalloc.start()
    try:
        for _ in range(calls):
            answer = examinee.answer(case)
            grads.append(answer.grad)
            del answer
            gc.collect()
            held.append(measure())
            if perf_counter() - started_at > PATIENCE:
                break
    finally:
        if started:
            tracemalloc.stop()
    steps = [b - a for a, b in zip(grads[:-1], grads[1:], strict=True)]
    apart = max(np.abs((g - first.grad) / case.allowed).max() for g in grads)
    return Repeated(
        float(apart),
        all(np.array_equal(g, first.grad) for g in grads),
        drifting(steps),
        growth(held, unit, len(grads[0])),
    )


def memory(name):
    """(a function that says what is held in memory, its unit): live tensors, where a framework can count them, or bytes of Python's."""
    if name == "torch":
        import torch

        return lambda: sum(
            1 for o in gc.get_objects() if issubclass(type(o), torch.Tensor)
        ), "tensors"
    if name == "jax":
        import jax

        return lambda: len(jax.live_arrays()), "arrays"
    return lambda: tracemalloc.get_traced_memory()[0], "bytes"


def growth(held, unit, numbers):
    """(by how much memory grows in each of the last COUNTED calls, unit), or None where it does not in every one of them."""
    if len(held) < SETTLING + COUNTED:
        return None
    each = np.diff(held[-COUNTED - 1 :])
    doctor_s_own = 8 * numbers + 512 if unit == "bytes" else 0  # the gradients kept above
    each = each - doctor_s_own
    least = LEAK if unit == "bytes" else 1
    return (int(np.median(each)), unit) if (each >= least).all() else None


def drifting(steps):
    """Whether consecutive changes point the same way; None for less than two."""
    if len(steps) < 2:
        return None
    sizes = [np.linalg.norm(s) for s in steps]
    if not all(sizes):
        return any(sizes)  # it moved and came to rest, or the other way round
    return bool(
        np.mean(
            [
                a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
                for a, b in zip(steps[:-1], steps[1:], strict=True)
            ]
        )
        > 0
    )
