"""The exceptions of refmaml. Each message is one line: argument, expected, got."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


class RefmamlError(Exception):
    """Base of all errors that refmaml raises; the command line prints their text."""


class ArgumentError(RefmamlError, ValueError):
    """An argument has the wrong shape, type or value."""


class NonFiniteError(RefmamlError, FloatingPointError):
    """A NaN or an infinity appeared.

    text  names the first place where it appeared
    task  the number of the first task that has one, or None
    """

    def __init__(self, text: str, task: int | None = None) -> None:
        super().__init__(text if task is None else f"{text} in task {task}")
        self.text, self.task = text, task

    def __reduce__(self) -> tuple:
        """Copies and pickles keep text and task apart."""
        return type(self), (self.text, self.task)

    def counted_from(self, start: int) -> "NonFiniteError":
        """The same error with its task counted from number `start` on."""
        return NonFiniteError(self.text, None if self.task is None else start + self.task)


class NotDifferentiableError(RefmamlError, ArithmeticError):
    """A derivative was asked for at a point where it does not exist."""


class OutOfMemoryError(RefmamlError, MemoryError):
    """The GPU's memory is too small for one task."""


class DataError(RefmamlError, OSError):
    """A data file or checkpoint is missing, of another kind, or corrupt."""


Text = str | Callable[[], str]


def expect(condition: Any, argument: str, expected: Text, got: Text) -> None:
    """Raise ArgumentError "argument: expected ..., got ..." unless `condition` holds.

    Texts that take time to make may be functions without arguments.
    """
    if not condition:
        wanted, found = (text() if callable(text) else text for text in (expected, got))
        raise ArgumentError(f"{argument}: expected {wanted}, got {found}")


def expect_installed(argument: str, module: str, package: str) -> None:
    """Raise ArgumentError unless Python finds `module`.

    package  what `pip install` takes to install the module
    """
    wanted = f"{module} to be installed (pip install {package})"
    expect(find_spec(module) is not None, argument, wanted, "nothing of that name")
