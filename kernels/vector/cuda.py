"""Arithmetic on flat vectors on a GPU: see reference.py for what is computed, vector.cu for how. Never run on one yet."""

import numpy as np

from refmaml.kernels.cuda_runtime.launcher import TEAM, in_blocks

__all__ = [
    "vector_step",
    "vector_scale",
    "vector_add_rows",
    "vector_move",
    "vector_proximal_step",
    "vector_adam_step",
    "vector_dot",
]


MOST_PARTS, RUN = (
    64,
    8,
)  # blocks that a row's sum is dealt out to at most, and numbers a thread that make another worth while


def wide(a, out):
    """A row of rates or parameters as long as the rows of `out`."""
    return a if a.shape[1] == out.shape[1] else np.broadcast_to(a, (len(a), out.shape[1]))


def vector_step(launch, out, a, rates, b):
    """out = a - rates * b; out may be b."""
    launch.elements("vector", "vector_step", [out], [a, wide(rates, out), b], out.shape[1])


def vector_scale(launch, out, rates, b):
    """out = rates * b."""
    launch.elements("vector", "vector_scale", [out], [wide(rates, out), b], out.shape[1])


def vector_add_rows(launch, total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    launch.elements("vector", "vector_add_rows", [total], [a], len(a), total.shape[1])


def vector_move(launch, out, a, s, b):
    """out = a + s b with a number s (T, 1) for each row, and a where s = 0, whatever b holds; out may be a or b."""
    launch.elements("vector", "vector_move", [out], [a, s, b], out.shape[1])


def vector_proximal_step(launch, out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    launch.elements(
        "vector",
        "vector_proximal_step",
        [out],
        [a, wide(rates, out), g, center],
        out.shape[1],
        float(strength),
    )


def vector_adam_step(launch, out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps); n (1, 1), v may be w."""
    numbers = out.shape[1], float(beta2), float(1 - beta2), float(eps)
    launch.elements(
        "vector", "vector_adam_step", [out, v], [a, wide(rates, out), g, w, n], *numbers
    )


def vector_dot(launch, out, a, b):
    """out (T, 1) = sum a b of each row: parts of it, which depend on the row's length alone, and their sum."""
    P = a.shape[1]
    parts = min(MOST_PARTS, in_blocks(P, RUN * TEAM))
    sums = launch.empty((len(out), parts), out.dtype)
    launch.teams("vector", "vector_dot", parts, [sums], [a, b], P)
    launch.elements("vector", "vector_add_parts", [out], [sums], 1, parts)
