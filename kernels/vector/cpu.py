"""Arithmetic on flat vectors on a CPU: see reference.py. NumPy does it, a few rows or a piece of one at a time, so that the second
operation finds what the first left in the second-level cache; threads take rows or pieces, or, for sums over rows, columns."""
import numpy as np

from refmaml.kernels.threads import share

__all__ = ["vector_step", "vector_scale", "vector_add_rows", "vector_adam"]

LITTLE = 1 << 16         # numbers below which waking another thread costs more than it brings
PIECE = 1 << 15         # numbers of a row worked on at a time


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


def vector_adam(out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps); n (1, 1), v may be w. See methods/reptile.py."""
    T, P = out.shape
    pieces = -(-P // PIECE)

    def run(lo, hi):
        spare = np.empty(min(P, PIECE), out.dtype)
        for t, k in (divmod(i, pieces) for i in range(lo, hi)):
            part = slice(k * PIECE, min((k + 1) * PIECE, P))
            adam(spare[:part.stop - part.start], n[0, 0], beta2, eps, *(x[t if len(x) > 1 else 0, part] for x in (out, v, a, rates, g, w)))
    share(T * pieces, run, out.size < LITTLE)


def adam(spare, n, beta2, eps, out, v, a, rates, g, w):
    """A piece of it, in the reference's order, so that its bits are the reference's."""
    np.multiply(g, 1 - beta2, out=spare)
    np.multiply(spare, g, out=spare)
    np.multiply(w, beta2, out=v)
    np.add(v, spare, out=v)
    np.divide(v, n, out=spare)
    np.sqrt(spare, out=spare)
    np.add(spare, eps, out=spare)
    np.divide(g, spare, out=spare)
    np.multiply(rates, spare, out=spare)
    np.subtract(a, spare, out=out)
