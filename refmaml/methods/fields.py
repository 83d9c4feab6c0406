"""Checks of the fields that methods share. NumPy's numbers count as Python's do."""

from typing import Any

from refmaml.arguments import is_bool, is_integer, is_number
from refmaml.errors import expect

__all__ = [
    "is_number",
    "is_integer",
    "is_bool",
    "check_positive",
    "check_tolerances",
    "check_steps",
]


def check_positive(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not a finite number > 0."""
    for name, value in values.items():
        expect(is_number(value) and value > 0, name, "a finite number > 0", repr(value))


def check_tolerances(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not a finite number >= 0."""
    for name, value in values.items():
        expect(is_number(value) and value >= 0, name, "a finite number >= 0", repr(value))


def check_steps(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not an integer >= 1."""
    wanted = "an integer >= 1 (ERM is the method without adaptation)"
    for name, value in values.items():
        expect(is_integer(value) and value >= 1, name, wanted, repr(value))
