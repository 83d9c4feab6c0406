"""The exceptions of refmaml.

Every message is one line: the argument's name, what was expected, what was given.
"""

from importlib.util import find_spec


class RefmamlError(Exception):
    """Base of all errors that refmaml raises on purpose; the command line prints the
    text.
    """


class ArgumentError(RefmamlError, ValueError):
    """An argument has the wrong shape, type or value."""


class NonFiniteError(RefmamlError, FloatingPointError):
    """A NaN or an infinity appeared.

    text  names the first place where it was found
    task  the number of the task it belongs to; None where it belongs to no single task
    """

    def __init__(self, text, task=None):
        super().__init__(text if task is None else f"{text} in task {task}")
        self.text, self.task = text, task

    def counted_from(self, start):
        """The same error, its task counted from `start`: for errors found in a chunk of
        tasks.
        """
        return NonFiniteError(self.text, None if self.task is None else start + self.task)


class OutOfMemoryError(RefmamlError, MemoryError):
    """The GPU's memory is too small for one task."""


class DataError(RefmamlError, OSError):
    """A data file or checkpoint is missing, of another format, or corrupt."""


def expect(condition, argument, expected, got):
    """Raise ArgumentError("ARGUMENT: expected EXPECTED, got GOT") unless `condition`
    holds.

    A text that is expensive to make may be a function without arguments.
    """
    if not condition:
        expected, got = (text() if callable(text) else text for text in (expected, got))
        raise ArgumentError(f"{argument}: expected {expected}, got {got}")


def expect_installed(argument, module, package):
    """Raise ArgumentError unless Python finds `module`, which `pip install package`
    installs.
    """
    expect(
        find_spec(module) is not None,
        argument,
        f"{module} to be installed (pip install {package})",
        "nothing of that name",
    )
