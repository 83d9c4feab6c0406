"""The tolerance of every comparison, from the theory of rounding errors.

A sum of K terms, each rounded once, has an error of about eps sqrt(K) times its largest
partial sum if roundings are independent (Higham 2002, section 2.6). The checks compare
max|err| / max|ref| over whole arrays. The largest of n normal deviates is about
sqrt(2 ln n) times their standard deviation: 4 is enough for n = 3,000. Both sides of a
comparison round, which gives another sqrt(2). Hence 6 eps sqrt(K), where K is the
largest number of values that go into one result. For passes in sequence the K add up,
as their roundings do.
"""

from typing import NamedTuple

import numpy as np

SPREAD = 6  # sqrt(2 ln 3000) * sqrt(2), rounded up


def tolerance(dtype, terms):
    """6 eps sqrt(K) for results of K = `terms` values each in `dtype`'s precision."""
    return SPREAD * np.finfo(dtype).eps * np.sqrt(terms)


def relative_error(value, reference):
    """max|value - reference| / max|reference|.

    The absolute error if the reference is 0; infinite if a number is not finite or the
    shapes differ.
    """
    value, reference = np.asarray(value), np.asarray(reference)
    if value.shape != reference.shape or not (
        np.isfinite(value).all() and np.isfinite(reference).all()
    ):
        return np.inf
    error, size = np.abs(value - reference).max(initial=0), np.abs(reference).max(initial=0)
    return float(error / size if size > 0 else error)


class Check(NamedTuple):
    """One comparison.

    rung       its place on the ladder
    subject    the layer, loss, net or method
    quantity   what of it is compared, and `oracle` with what
    error      relative, and `tolerance` the largest that passes
    margin     the relative distance from the nearest kink; infinite without kinks
    """

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
