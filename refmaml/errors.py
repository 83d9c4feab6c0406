"""What refmaml raises. Every message is one line: the argument's name, what was expected, what came."""

from importlib.util import find_spec


class RefmamlError(Exception):
    """Base of every error refmaml raises on purpose; the command line prints its text and nothing else."""


class ArgumentError(RefmamlError, ValueError):
    """An argument has the wrong shape, type or value."""


class NonFiniteError(RefmamlError, FloatingPointError):
    """A NaN or an infinity appeared; the text names the first place it was seen, and the task, where it is one task's."""

    def __init__(self, text, task=None):
        super().__init__(text if task is None else f"{text} in task {task}")
        self.text, self.task = text, task

    def counted_from(self, start):
        """The same of a task counted among all, where it was counted among those from number `start` on."""
        return NonFiniteError(self.text, None if self.task is None else start + self.task)


class OutOfMemoryError(RefmamlError, MemoryError):
    """The GPU's memory does not hold even one task."""


class DataError(RefmamlError, OSError):
    """A data file or checkpoint is missing, foreign or corrupt."""


def expect(condition, argument, expected, got):
    """Raise `ArgumentError` in the house's one form unless `condition` holds; texts that take time may be functions."""
    if not condition:
        raise ArgumentError(
            f"{argument}: expected {expected() if callable(expected) else expected}, got {got() if callable(got) else got}"
        )


def expect_installed(argument, module, package):
    """Raise `ArgumentError` unless Python finds `module`, which `pip install package` brings."""
    expect(
        find_spec(module) is not None,
        argument,
        f"{module} to be installed (pip install {package})",
        "nothing of that name",
    )
