"""Arithmetic on flat vectors on a CPU: see reference.py. NumPy does it, a row at a time, so that the second operation finds what the first
left in the second-level cache; threads take rows, or, for sums over rows, columns."""
import numpy as np

from refmaml.kernels.threads import share

__all__ = ["vector_step", "vector_scale", "vector_add_rows"]

LITTLE = 1 << 16         # numbers below which waking another thread costs more than it brings


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    def rows(lo, hi):
        for t in range(lo, hi):
            np.multiply(rates[t % len(rates)], b[t % len(b)], out=out[t])
            np.subtract(a[t % len(a)], out[t], out=out[t])
    share(len(out), rows, out.size < LITTLE)


def vector_scale(out, rates, b):
    """out = rates * b."""
    def rows(lo, hi):
        np.multiply(rates[lo:hi] if len(rates) > 1 else rates, b[lo:hi] if len(b) > 1 else b, out=out[lo:hi])
    share(len(out), rows, out.size < LITTLE)


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    def columns(lo, hi):
        for row in a:
            np.add(total[0, lo:hi], row[lo:hi], out=total[0, lo:hi])
    share(total.shape[1], columns, a.size < LITTLE)
