"""Calling the user's function on a case."""

import inspect
import traceback

import numpy as np

from refmaml.doctor.frameworks import first_line, unchanged_inputs
from refmaml.doctor.returns import read
from refmaml.errors import ArgumentError, expect

DRAWS = 3  # how many other points are drawn, of which the one farthest from a kink is used


class UserFunction:
    """The user's function with everything a call needs: its framework and its layout.

    takes_problem   whether it is fn(problem, params, batch), and not fn(params, batch)
    """

    def __init__(self, fn, lib, layout):
        expect(
            callable(fn),
            "fn",
            "a function fn(problem, params, batch) or fn(params, batch)",
            lambda: type(fn).__name__,
        )
        self.fn, self.lib, self.layout = fn, lib, layout
        self.takes_problem = number_of_arguments(fn) == 3

    def answer(self, case):
        """The Answer on a case. Raises ArgumentError in one line."""
        with self.lib.scope(), case.scope():
            problem, params, batch, inputs = case.arguments(self.lib, self.layout)
            arguments = (problem, params, batch) if self.takes_problem else (params, batch)
            with unchanged_inputs(self.lib, inputs):
                try:
                    value = self.fn(*arguments)
                except (Exception, SystemExit) as error:
                    raise ArgumentError(
                        f"function: expected a gradient on the {case.name} case, "
                        f"got {first_line(error)}{user_line(error)}"
                    ) from error
            return read(value, case, self.layout)

    def mean_of_single_tasks(self, case):
        """(M,): the mean of the gradients returned for one task at a time, weighted as
        the case's tasks are."""
        single = (case.with_(batch=case.batch[t : t + 1]) for t in range(len(case.batch)))
        return case.mean(np.stack([self.answer(one).grad for one in single]))

    def answer_nearby(self, case):
        """(case, Answer) on the case with each number changed by up to a tenth.

        The case is the one farthest from a kink among DRAWS.
        """
        rng = np.random.default_rng(0)
        drawn = [case.nearby(rng, 0.1) for _ in range(DRAWS)]
        other = max(drawn, key=lambda c: c.margin).rounded(case.dtype)
        return other, self.answer(other)


def number_of_arguments(fn):
    """2 or 3: how many positional arguments the function takes.

    An argument with a default keeps it where 2 or 3 others remain. Raises ArgumentError
    for another number.
    """
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin, or a compiled function without a signature
        return 3
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return 3
    needed = sum(p.default is p.empty for p in positional)
    if needed in (2, 3):
        return needed
    if needed < 2 and len(positional) in (2, 3):
        return len(positional)
    raise ArgumentError(
        "fn: expected a function of (problem, params, batch) or (params, batch), "
        f"got one of {len(positional)} arguments"
    )


def user_line(error):
    """The file and line of the user's own code in which an exception arose."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "refmaml/doctor" not in f.filename.replace("\\", "/")
    ]
    return f" ({frames[0].filename}:{frames[0].lineno})" if frames else ""
