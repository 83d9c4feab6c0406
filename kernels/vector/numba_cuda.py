"""Arithmetic on flat vectors in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.
"""

import math

import numpy as np
from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = [
    "vector_step",
    "vector_scale",
    "vector_add_rows",
    "vector_move",
    "vector_proximal_step",
    "vector_adam_step",
    "vector_dot",
]


@cuda.jit
def step(out, a, rates, b):
    """out = a - rates b, a thread for each column.

    A thread reads its numbers before it writes, so out may be b.
    """
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        out[t, i] = a[t % len(a), i] - rates[t % len(rates), i] * b[t % len(b), i]


@cuda.jit
def scale(out, rates, b):
    """out = rates b, a thread for each column."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        out[t, i] = rates[t % len(rates), i] * b[t % len(b), i]


@cuda.jit
def add_rows(total, a):
    """total[0] += the rows of a, one after another: a thread for each column."""
    i = cuda.grid(1)
    if i < a.shape[1]:
        for t in range(len(a)):
            total[0, i] += a[t, i]


@cuda.jit
def move(out, a, s, b):
    """out = a + s b, a thread for each column; a row with s = 0 is a, whatever b is."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        s_t, a_ti = s[t % len(s), 0], a[t % len(a), i]
        out[t, i] = a_ti + s_t * b[t % len(b), i] if s_t != 0 else a_ti


@cuda.jit
def proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)), a thread for each column."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        a_ti = a[t % len(a), i]
        out[t, i] = a_ti - rates[t % len(rates), i] * (
            g[t % len(g), i] + strength * (a_ti - center[t % len(center), i])
        )


@cuda.jit
def adam_step(out, v, a, rates, g, w, n, beta2, rest, eps):
    """v = beta2 w + rest g g and out = a - rates g / (sqrt(v / n) + eps).

    A thread for each column, so that v may be w. rest: 1 - beta2.
    """
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        g_ti = g[t % len(g), i]
        v[t, i] = beta2 * w[t % len(w), i] + rest * g_ti * g_ti
        out[t, i] = a[t % len(a), i] - rates[t % len(rates), i] * (
            g_ti / (math.sqrt(v[t, i] / n[0, 0]) + eps)
        )


@cuda.jit
def dot(out, a, b):
    """out = sum a b, a thread for each task; it adds the terms in order."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i == 0:
        total = 0.0
        for p in range(a.shape[1]):
            total += a[t % len(a), p] * b[t % len(b), p]
        out[t, 0] = total


def broadcast(a, out):
    """Rates as rows of the length of `out`'s rows."""
    return np.broadcast_to(a, (len(a), out.shape[1]))


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    for_each(step, out.shape[1], [out], [a, broadcast(rates, out), b])


def vector_scale(out, rates, b):
    """out = rates * b."""
    for_each(scale, out.shape[1], [out], [broadcast(rates, out), b])


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    for_each(add_rows, total.shape[1], [total], [a])


def vector_move(out, a, s, b):
    """out = a + s b with a number s (T, 1) per row; a where s = 0, whatever b is.

    out may be a or b.
    """
    for_each(move, out.shape[1], [out], [a, s, b])


def vector_proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    for_each(
        proximal_step,
        out.shape[1],
        [out],
        [a, broadcast(rates, out), g, center],
        out.dtype.type(strength),
    )


def vector_adam_step(out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps).

    n (1, 1); v may be w.
    """
    beta2, rest, eps = (out.dtype.type(number) for number in (beta2, 1 - beta2, eps))
    for_each(
        adam_step, out.shape[1], [out, v], [a, broadcast(rates, out), g, w, n], beta2, rest, eps
    )


def vector_dot(out, a, b):
    """out (T, 1) = sum a b of each row."""
    for_each(dot, 1, [out], [a, b])
