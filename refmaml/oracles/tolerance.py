"""How far apart two correct computations may be, in one place.

A sum of K terms, each rounded once, is off by about eps sqrt(K) times its largest partial sum when roundings are independent (Higham
2002, section 2.6). We compare max|err| / max|ref| over whole arrays, and the largest of n normal deviates is about sqrt(2 ln n) of their
spread: 4 covers n = 3,000. Both sides of a comparison round, which another sqrt(2) covers. Hence 6 eps sqrt(K), K the largest number
of values that go into one result. A chain of passes counts the sum of its K, as its roundings add up.
"""

from typing import NamedTuple

import numpy as np

SPREAD = 6  # sqrt(2 ln 3000) * sqrt(2), rounded up


def tolerance(dtype, terms):
    """6 eps sqrt(K) for results of K = `terms` values each in `dtype`'s precision."""
    return SPREAD * np.finfo(dtype).eps * np.sqrt(terms)


def relative_error(value, reference):
    """max|value - reference| / max|reference|; the absolute error where the reference is 0; infinite if anything is not finite."""
    value, reference = np.asarray(value), np.asarray(reference)
    if value.shape != reference.shape or not (
        np.isfinite(value).all() and np.isfinite(reference).all()
    ):
        return np.inf
    error, size = np.abs(value - reference).max(initial=0), np.abs(reference).max(initial=0)
    return float(error / size if size > 0 else error)


class Check(NamedTuple):
    """rung: where on the ladder. subject: the layer, loss or method. quantity: what of it. oracle: what it was held against.
    error and tolerance are relative; margin is the distance from the nearest kink, where there are kinks."""

    rung: str
    subject: str
    quantity: str
    oracle: str
    error: float
    tolerance: float
    margin: float = np.inf

    @property
    def passed(self):
        return bool(self.error <= self.tolerance)
