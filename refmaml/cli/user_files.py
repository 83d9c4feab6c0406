"""Functions and data in files of the user's: FILE.py:NAME on the command line."""

import functools
import importlib.util
import inspect
import sys
from pathlib import Path

from refmaml.errors import ArgumentError, expect


def imported(file):
    """The module in a file; its folder is searched, as by `python FILE.py`."""
    path = Path(file)
    got = file if path.exists() else f"{file}, which does not exist"
    expect(path.is_file(), "function", "a Python file", got)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    expect(spec is not None, "function", "a Python file, *.py", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script's own sys.exit(0) is no verdict
        text = f"function: expected {file} to import, got {type(error).__name__}: {error}"
        raise ArgumentError(text.splitlines()[0]) from error
    return module


def named(module, file, name, option):
    """The object called `name` in the module of a file."""
    got = f"{name!r}, which it does not have"
    expect(hasattr(module, name), option, f"a name in {file}", got)
    return getattr(module, name)


def data_of(value, option):
    """A value itself; of a function, what it returns without arguments.

    Other objects that can be called, such as a module of PyTorch, are data.
    """
    if not (inspect.isroutine(value) or isinstance(value, functools.partial)):
        return value
    try:
        return value()
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise ArgumentError(
            f"{option}: expected data, or a function without arguments that returns it, "
            f"got {type(error).__name__}: {line}"
        ) from error


class UserFile:
    """The names in a user's file, and in others as FILE.py:NAME.

    Each file is imported once, so that its functions and data share one module.
    """

    def __init__(self, file):
        self.file, self.modules = file, {file: imported(file)}

    def find(self, text, option):
        """The object NAME, or FILE.py:NAME. Raises ArgumentError in one line."""
        file, colon, name = text.rpartition(":")
        file = file if colon else self.file
        expect(name.isidentifier(), option, "NAME, or FILE.py:NAME", repr(text))
        if file not in self.modules:
            self.modules[file] = imported(file)
        return named(self.modules[file], file, name, option)

    def has(self, name):
        """Whether the user's own file has a name."""
        return hasattr(self.modules[self.file], name)

    def function(self, text, option):
        """A function. Raises ArgumentError in one line."""
        found = self.find(text, option)
        got = f"{text.rpartition(':')[2]!r}, which is not one"
        expect(
            callable(found), option, f"a function in {text.rpartition(':')[0] or self.file}", got
        )
        return found

    def data(self, text, option):
        """A value; a function without arguments is called for it."""
        return data_of(self.find(text, option), option)


def load(text):
    """(UserFile, function) of FILE.py:FUNCTION. Raises ArgumentError in one line."""
    file, colon, name = text.rpartition(":")
    expect(colon and file and name.isidentifier(), "function", "FILE.py:FUNCTION", repr(text))
    found = UserFile(file)
    return found, found.function(name, "function")
