"""Checks of the fields that methods share. NumPy's numbers count as Python's do."""

from typing import Any

import numpy as np

from refmaml.arguments import is_integer, is_number
from refmaml.errors import expect


def check_positive(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not a finite number > 0."""
    for name, value in values.items():
        expect(is_number(value) and value > 0, name, "a finite number > 0", repr(value))


def check_step_size(inner_lr: Any, steps: int) -> Any:
    """inner_lr: a number, or a tuple of one for each step. Raises ArgumentError."""
    if not isinstance(inner_lr, tuple | list | np.ndarray) or np.ndim(inner_lr) != 1:
        check_positive(inner_lr=inner_lr)
        return inner_lr
    wanted = f"a number, or {steps} of them, one for each inner step"
    expect(len(inner_lr) == steps, "inner_lr", wanted, repr(inner_lr))
    check_positive(**{f"inner_lr[{k}]": alpha for k, alpha in enumerate(inner_lr)})
    return tuple(inner_lr)


def check_steps(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not an integer >= 1."""
    wanted = "an integer >= 1 (ERM is the method without adaptation)"
    for name, value in values.items():
        expect(is_integer(value) and value >= 1, name, wanted, repr(value))
