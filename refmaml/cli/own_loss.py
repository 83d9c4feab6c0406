"""`refmaml doctor --loss FILE.py:LOSS`: the user's loss, parameters and tasks."""

import functools
import inspect

from refmaml.cli import options
from refmaml.cli.doctor import OWN_LOSS, imported
from refmaml.errors import ArgumentError, expect

OBJECTS = tuple(name for name in OWN_LOSS if name != "not_meta_learned")  # FILE.py:NAME
DATA = ("params", "batch")  # which may be functions without arguments


def own_loss(given):
    """The arguments of check_meta_gradient that the options in OWN_LOSS give."""
    found = {name: value_of(name, given[name]) for name in OBJECTS if name in given}
    for name in found:
        beside = name == "loss" or "loss" in found
        expect(beside, options.flag(name), "--loss beside it", "none")
    if "loss" in found:
        for name in DATA:
            expect(name in found, options.flag(name), "FILE.py:NAME beside --loss", "nothing")
    if "not_meta_learned" in given:
        found["not_meta_learned"] = tuple(given["not_meta_learned"])
    return found


def value_of(option, text):
    """The object in FILE.py:NAME, or what it returns where it is a function of data."""
    file, colon, name = text.rpartition(":")
    expect(colon and file, options.flag(option), "FILE.py:NAME", repr(text))
    module = imported(file)
    got = f"{name!r}, which it does not have"
    expect(hasattr(module, name), options.flag(option), f"a name in {file}", got)
    value = getattr(module, name)
    made = inspect.isroutine(value) or isinstance(value, functools.partial)
    if option not in DATA or not made:
        return value
    try:
        return value()
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise ArgumentError(
            f"{options.flag(option)}: expected data, or a function without arguments that "
            f"returns it, got {type(error).__name__}: {line}"
        ) from error
