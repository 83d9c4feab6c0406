"""Arithmetic on flat vectors of parameters: (T, P), or (1, P) shared by all tasks."""

import numpy as np

__all__ = [
    "vector_step",
    "vector_scale",
    "vector_add_rows",
    "vector_move",
    "vector_proximal_step",
    "vector_adam_step",
    "vector_dot",
]


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    np.subtract(a, rates * b, out=out)


def vector_scale(out, rates, b):
    """out = rates * b."""
    np.multiply(rates, b, out=out)


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after the other."""
    for row in a:
        total += row


def vector_move(out, a, s, b):
    """out = a + s b with a number s (T, 1) for each row; out may be a or b.

    Where s = 0, out = a, even if b is not finite.
    """
    with np.errstate(all="ignore"):
        step = s * b
    step[s[:, 0] == 0] = 0
    np.add(a, step, out=out)


def vector_proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    np.subtract(a, rates * (g + strength * (a - center)), out=out)


def vector_adam_step(out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps).

    n is (1, 1); v may be w.
    """
    np.add(beta2 * w, (1 - beta2) * g * g, out=v)
    np.subtract(a, rates * (g / (np.sqrt(v / n) + eps)), out=out)


def vector_dot(out, a, b):
    """out (T, 1) = sum a b of each row.

    Row by row, as NumPy's sum over one row and its sums over several differ in their
    bits.
    """
    for t in range(len(out)):
        out[t, 0] = np.einsum("p,p->", a[t % len(a)], b[t % len(b)])
