"""Arithmetic on flat vectors on a CPU: see reference.py. NumPy does it, a few rows at a time, so that the second operation finds what the
first left in the second-level cache; threads take rows, or, for sums over rows, columns."""
import numpy as np

from refmaml.kernels.threads import share

__all__ = ["vector_step", "vector_scale", "vector_add_rows"]

LITTLE = 1 << 16         # numbers below which waking another thread costs more than it brings


def of(a, part):
    """Some rows; the only one where all tasks share it."""
    return a[part] if len(a) > 1 else a


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    several = max(1, LITTLE // out.shape[1])

    def rows(lo, hi):
        for start in range(lo, hi, several):
            part = slice(start, min(start + several, hi))
            np.multiply(of(rates, part), of(b, part), out=out[part])
            np.subtract(of(a, part), out[part], out=out[part])
    share(len(out), rows, out.size < LITTLE)


def vector_scale(out, rates, b):
    """out = rates * b."""
    def rows(lo, hi):
        np.multiply(of(rates, slice(lo, hi)), of(b, slice(lo, hi)), out=out[lo:hi])
    share(len(out), rows, out.size < LITTLE)


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    def columns(lo, hi):
        for row in a:
            np.add(total[0, lo:hi], row[lo:hi], out=total[0, lo:hi])
    share(total.shape[1], columns, a.size < LITTLE)
