"""`refmaml doctor --loss FILE.py:LOSS`: the user's loss, parameters and tasks."""

from refmaml.cli import options
from refmaml.cli.doctor import OWN_LOSS
from refmaml.cli.user_files import data_of, object_at
from refmaml.errors import expect

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
    value = object_at(text, options.flag(option))
    return data_of(value, options.flag(option)) if option in DATA else value
