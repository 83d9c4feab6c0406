"""Checks of the fields that methods share. NumPy's numbers are taken wherever Python's are."""

from math import isfinite
from numbers import Integral, Real

from refmaml.errors import expect


def is_number(value):
    """Whether a value is a finite real number; a bool is none."""
    return isinstance(value, Real) and not is_bool(value) and isfinite(value)


def is_integer(value):
    """Whether a value is an integer; a bool is none."""
    return isinstance(value, Integral) and not is_bool(value)


def is_bool(value):
    """Whether a value is Python's or NumPy's bool."""
    return type(value).__name__ in ("bool", "bool_")


def check_positive(**values):
    """Raise ArgumentError naming the first value that is not a finite number > 0."""
    for name, value in values.items():
        expect(is_number(value) and value > 0, name, "a finite number > 0", repr(value))


def check_tolerances(**values):
    """Raise ArgumentError naming the first value that is not a finite number >= 0."""
    for name, value in values.items():
        expect(is_number(value) and value >= 0, name, "a finite number >= 0", repr(value))


def check_steps(**values):
    """Raise ArgumentError naming the first value that is not an integer >= 1."""
    wanted = "an integer >= 1 (ERM is the method without adaptation)"
    for name, value in values.items():
        expect(is_integer(value) and value >= 1, name, wanted, repr(value))
