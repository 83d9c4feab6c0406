"""Arithmetic on flat vectors on a GPU, by the kernels of vector.cu.

Not run on a GPU yet.
"""

import numpy as np

from refmaml.kernels.cuda_runtime.launcher import TEAM, blocks_of

__all__ = [
    "vector_step",
    "vector_scale",
    "vector_add_rows",
    "vector_move",
    "vector_proximal_step",
    "vector_adam_step",
    "vector_dot",
]

MAX_PARTS = 64  # blocks among which the sum over a row is divided
PER_THREAD = 8  # numbers of a thread for which another block is worth while


def as_wide(a, out):
    """A row of rates or parameters, broadcast to the length of the rows of `out`."""
    return a if a.shape[1] == out.shape[1] else np.broadcast_to(a, (len(a), out.shape[1]))


def vector_step(launch, out, a, rates, b):
    """out = a - rates * b; out may be b."""
    launch.elements("vector", "vector_step", [out], [a, as_wide(rates, out), b], out.shape[1])


def vector_scale(launch, out, rates, b):
    """out = rates * b."""
    launch.elements("vector", "vector_scale", [out], [as_wide(rates, out), b], out.shape[1])


def vector_add_rows(launch, total, a):
    """total (1, P) += the rows of a (T, P), one after the other."""
    launch.elements("vector", "vector_add_rows", [total], [a], len(a), total.shape[1])


def vector_move(launch, out, a, s, b):
    """out = a + s b with a number s (T, 1) for each row; out may be a or b.

    Where s = 0, out = a, even if b is not finite.
    """
    launch.elements("vector", "vector_move", [out], [a, s, b], out.shape[1])


def vector_proximal_step(launch, out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    inputs, numbers = [a, as_wide(rates, out), g, center], (out.shape[1], float(strength))
    launch.elements("vector", "vector_proximal_step", [out], inputs, *numbers)


def vector_adam_step(launch, out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps).

    n is (1, 1); v may be w.
    """
    numbers = out.shape[1], float(beta2), float(1 - beta2), float(eps)
    inputs = [a, as_wide(rates, out), g, w, n]
    launch.elements("vector", "vector_adam_step", [out, v], inputs, *numbers)


def vector_dot(launch, out, a, b):
    """out (T, 1) = sum a b of each row.

    Partial sums, whose number depends on the length of the row alone, are added in
    order.
    """
    P = a.shape[1]
    parts = min(MAX_PARTS, blocks_of(P, PER_THREAD * TEAM))
    sums = launch.empty((len(out), parts), out.dtype)
    launch.teams("vector", "vector_dot", parts, [sums], [a, b], P)
    launch.elements("vector", "vector_add_parts", [out], [sums], 1, parts)
