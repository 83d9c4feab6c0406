"""Checks of single arguments. NumPy's numbers are taken wherever Python's are.

Each check raises ArgumentError in one line that names the argument.
"""

from math import isfinite
from numbers import Integral, Real
from typing import Any

from refmaml.errors import expect


def is_number(value: Any) -> bool:
    """Whether a value is a finite real number; a bool is none."""
    return isinstance(value, Real) and not is_bool(value) and isfinite(value)


def is_integer(value: Any) -> bool:
    """Whether a value is an integer; a bool is none."""
    return isinstance(value, Integral) and not is_bool(value)


def is_bool(value: Any) -> bool:
    """Whether a value is Python's or NumPy's bool."""
    return type(value).__name__ in ("bool", "bool_")


def check_integer(argument: str, value: Any, least: int = 1) -> int:
    """The value as Python's int, if it is an integer >= least."""
    ok = is_integer(value) and value >= least
    expect(ok, argument, f"an integer >= {least}", lambda: repr(value))
    return int(value)


def check_number(argument: str, value: Any) -> float:
    """The value as Python's float, if it is a finite number."""
    expect(is_number(value), argument, "a finite number", lambda: repr(value))
    return float(value)


def check_positive_number(argument: str, value: Any, remark: str = "") -> float:
    """The value as Python's float, if it is a finite number > 0."""
    ok = is_number(value) and value > 0
    expect(ok, argument, f"a finite number > 0{remark}", lambda: repr(value))
    return float(value)


def check_not_negative(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not a finite number >= 0."""
    for name, value in values.items():
        expect(is_number(value) and value >= 0, name, "a finite number >= 0", repr(value))


def check_bool(argument: str, value: Any) -> bool:
    """The value as Python's bool, if it is one."""
    expect(is_bool(value), argument, "True or False", lambda: repr(value))
    return bool(value)


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> str:
    """The value, if it is one of the strings in `choices`."""
    ok = isinstance(value, str) and value in choices
    expect(ok, argument, f"one of {', '.join(choices)}", lambda: repr(value))
    return value


def set_fields(layer: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass in its __post_init__, as checked Python numbers.

    NumPy's float64 would make float64 of the float32 arrays that it multiplies.
    """
    for name, value in values.items():
        object.__setattr__(layer, name, value)
