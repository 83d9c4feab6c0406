"""Derivatives by 4th-order central differences, and how exactly they are known.

    f'(0) = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / (12 h) + O(h^4)

The truncation falls with h^4, the rounding grows with 1/h, and kinks disturb large h.
So several h are tried, and the one is used at which two of them agree best. That uses
nothing of the derivative that is to be checked."""

from typing import NamedTuple

import numpy as np

STEPS = tuple(10.0**-k for k in np.arange(1.5, 6.1, 0.5))  # of a direction of length 1


class Difference(NamedTuple):
    """value: the derivative; error: how far it may be off; step: the h used."""

    value: np.ndarray
    error: float
    step: float


def central(f, h):
    """The derivative of f at 0, with one step h; a number or an array."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def best_difference(f, steps=STEPS):
    """The Difference of f at 0 with the best of some steps."""
    return best_of([central(f, h) for h in steps], steps)


def best_of(values, steps):
    """The Difference among values at some steps: where two neighbours agree best."""
    gaps = [np.abs(a - b).max() for a, b in zip(values, values[1:], strict=False)]
    gaps = [gap if np.isfinite(gap) else np.inf for gap in gaps]
    best = int(np.argmin(gaps))
    return Difference(values[best + 1], float(gaps[best]), steps[best + 1])


def product_by_differences(gradient, w, v, step):
    """H v (P,) from gradients at w + s v / |v|.

    gradient  w (P,) -> (P,)
    """
    size = np.linalg.norm(v)
    if size == 0:
        return np.zeros_like(v)
    return size * central(lambda s: gradient(w + s * v / size), step)
