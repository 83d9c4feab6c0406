"""Checks of the arguments of task distributions: each raises ArgumentError."""

from numbers import Integral, Real

import numpy as np

from refmaml.errors import expect


def expect_count(name, value, least=1):
    """An integer `value` >= `least`, or ArgumentError."""
    expect(
        isinstance(value, Integral) and not isinstance(value, bool) and value >= least,
        name,
        f"an integer >= {least}",
        repr(value),
    )


def expect_level(name, value):
    """A finite real `value` >= 0, such as a standard deviation, or ArgumentError."""
    expect(
        isinstance(value, Real) and np.isfinite(value) and value >= 0,
        name,
        "a number >= 0",
        repr(value),
    )


def expect_interval(name, value):
    """A pair (low, high) of finite numbers with low <= high, or ArgumentError."""
    pair = (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(v, Real) for v in value)
    )
    expect(
        pair and np.isfinite(value).all() and value[0] <= value[1],
        name,
        "two finite numbers (low, high)",
        repr(value),
    )


def expect_choice(name, value, choices):
    """One of `choices`, or ArgumentError."""
    expect(
        isinstance(value, str) and value in choices,
        name,
        f"one of {', '.join(choices)}",
        repr(value),
    )


def expect_real_dtype(dtype):
    """A real floating-point dtype, or ArgumentError."""
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = None
    expect(kind == "f", "dtype", "a real floating-point type such as numpy.float32", repr(dtype))
