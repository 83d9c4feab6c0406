"""Calling the user's loss: what it takes, and what it must return."""

import inspect

from refmaml.doctor.frameworks import first_line
from refmaml.doctor.user_function import user_line
from refmaml.errors import ArgumentError, RefmamlError, expect

LOSS = "loss(params, x, y) -> the mean loss of one task, one real number"


class UserLoss:
    """loss(params, x, y) of one task, however the user wrote it.

    loss     loss(params, x, y); or loss(outputs, y) beside a forward function
    forward  forward(params, x) -> outputs, or None
    Raises ArgumentError in one line for a loss that cannot be called so, and where a
    call raises.
    """

    def __init__(self, loss, forward=None):
        expect(callable(loss), "loss", f"a function {LOSS}", lambda: type(loss).__name__)
        expect(
            forward is None or callable(forward),
            "forward",
            "a function forward(params, x) -> outputs",
            lambda: type(forward).__name__,
        )
        self.function, self.forward = loss, forward
        self.of_outputs = forward is not None and arguments(loss) == 2
        expect(
            arguments(loss) == 3 or self.of_outputs,
            "loss",
            f"a function {LOSS}; or loss(outputs, y) beside forward= or an nn.Module",
            lambda: f"one of {arguments(loss)} arguments",
        )

    def __call__(self, params, x, y):
        if self.of_outputs:
            return self.function(self.forward(params, x), y)
        return self.function(params, x, y)

    def called(self, params, data, x, y):
        """The loss of one task, whose TaskData of x is `data`."""
        return self.guarded(data, lambda: self(params, x, y))

    def guarded(self, data, call):
        """call(); an exception of the user's code is an ArgumentError in one line."""
        try:
            return call()
        except RefmamlError:
            raise
        except (Exception, SystemExit) as error:
            raise ArgumentError(
                f"loss: expected a number on the {data.role} set of task {data.task}, "
                f"got {first_line(error)}{user_line(error)}"
            ) from error


def arguments(loss):
    """How many positional arguments a loss takes, 3 where that cannot be seen.

    Arguments with defaults do not count beyond the third, as in F.cross_entropy.
    """
    function = loss.forward if hasattr(loss, "state_dict") else loss
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 3
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return 3
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in positional)
    return needed if needed >= 2 else len(positional)


def expect_number(value, shape, is_real):
    """Raise ArgumentError unless a loss returned one real number."""
    expect(value is not None, "loss", LOSS, "None (is there a return statement?)")
    expect(
        shape is not None and all(n == 1 for n in shape),
        "loss",
        "one number, the mean over the examples of a task",
        lambda: f"{type(value).__name__}" if shape is None else f"shape {tuple(shape)}",
    )
    expect(is_real, "loss", "a floating-point number", lambda: f"{getattr(value, 'dtype', value)}")
