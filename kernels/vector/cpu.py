"""Arithmetic on flat vectors on a CPU: see reference.py. NumPy does it, a few rows or a piece of one at a time, so that the second
operation finds what the first left in the second-level cache; threads take pieces, or, for sums over rows, columns.

Operations come in the reference's order: their bits are the reference's.
"""
import numpy as np

from refmaml.kernels.threads import share
from refmaml.kernels.vector import reference

__all__ = ["vector_step", "vector_scale", "vector_add_rows", "vector_move", "vector_proximal_step", "vector_adam_step", "vector_dot"]

LITTLE = 1 << 16         # numbers below which waking another thread costs more than it brings
PIECE = 1 << 15          # numbers of an array worked on at a time


def in_pieces(run, out, *others):
    """run(spare, piece of out, pieces of the others), until all of out is done; spare: room for as much as the piece."""
    T, P = out.shape
    height, width = (PIECE // P, P) if P <= PIECE else (1, PIECE)
    across = -(-P // width)

    def some(lo, hi):
        room = np.empty((height, width), out.dtype)
        for down, right in (divmod(i, across) for i in range(lo, hi)):
            rows, columns = slice(down * height, (down + 1) * height), slice(right * width, (right + 1) * width)
            first, *rest = (of(x, rows, columns) for x in (out, *others))
            run(room[:first.shape[0], :first.shape[1]], first, *rest)
    share(-(-T // height) * across, some, out.size < LITTLE)


def of(x, rows, columns):
    """A piece of an array, of which all rows or all columns may be one."""
    return x[rows if len(x) > 1 else slice(None), columns if x.shape[1] > 1 else slice(None)]


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    def run(spare, out, a, rates, b):
        np.multiply(rates, b, out=spare)
        np.subtract(a, spare, out=out)
    in_pieces(run, out, a, rates, b)


def vector_scale(out, rates, b):
    """out = rates * b."""
    def run(spare, out, rates, b):
        np.multiply(rates, b, out=out)
    in_pieces(run, out, rates, b)


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    def columns(lo, hi):
        for row in a:
            np.add(total[0, lo:hi], row[lo:hi], out=total[0, lo:hi])
    share(total.shape[1], columns, a.size < LITTLE)


def vector_move(out, a, s, b):
    """out = a + s b with a number s (T, 1) for each row, and a where s = 0, whatever b holds; out may be a or b."""
    def run(spare, out, a, s, b):
        with np.errstate(all="ignore"):
            np.multiply(s, b, out=spare)
            spare[s[:, 0] == 0] = 0
            np.add(a, spare, out=out)
    in_pieces(run, out, a, s, b)


def vector_proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    def run(spare, out, a, rates, g, center):
        np.subtract(a, center, out=spare)
        np.multiply(spare, strength, out=spare)
        np.add(g, spare, out=spare)
        np.multiply(rates, spare, out=spare)
        np.subtract(a, spare, out=out)
    in_pieces(run, out, a, rates, g, center)


def vector_adam_step(out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps); n (1, 1), v may be w."""
    def run(spare, out, v, a, rates, g, w, n):
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
    in_pieces(run, out, v, a, rates, g, w, n)


def vector_dot(out, a, b):
    """out (T, 1) = sum a b of each row."""
    def rows(lo, hi):
        reference.vector_dot(out[lo:hi], a[lo:hi] if len(a) > 1 else a, b[lo:hi] if len(b) > 1 else b)
    share(len(out), rows, len(out) * a.shape[1] < LITTLE)
