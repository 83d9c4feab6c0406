"""Checks of the fields that methods share."""

from math import isfinite

from refmaml.errors import expect


def check_positive(**values):
    """Raise ArgumentError naming the first value that is not a finite number > 0."""
    for name, value in values.items():
        ok = isinstance(value, (int, float)) and isfinite(value) and value > 0
        expect(ok, name, "a finite number > 0", repr(value))


def check_tolerances(**values):
    """Raise ArgumentError naming the first value that is not a finite number >= 0."""
    for name, value in values.items():
        ok = isinstance(value, (int, float)) and isfinite(value) and value >= 0
        expect(ok, name, "a finite number >= 0", repr(value))


def check_steps(**values):
    """Raise ArgumentError naming the first value that is not an integer >= 1 (without adaptation, use ERM)."""
    for name, value in values.items():
        expect(
            isinstance(value, int) and value >= 1,
            name,
            "an integer >= 1 (ERM is the method without adaptation)",
            repr(value),
        )
