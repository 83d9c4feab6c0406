"""Arithmetic on flat vectors in Numba CUDA: see reference.py for what is computed. Never run on a GPU yet; tested on Numba's simulator."""

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
    """out = a - rates b, a thread for each column; a thread reads its numbers before it writes, so out may be b."""
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
    """out = a + s b, a thread for each column; a row whose s is 0 stays, whatever b holds."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        s_t, a_ti = s[t % len(s), 0], a[t % len(a), i]
        out[t, i] = a_ti + s_t * b[t % len(b), i] if s_t != 0 else a_ti


@cuda.jit
def proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)), a thread for each column."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        here = a[t % len(a), i]
        out[t, i] = here - rates[t % len(rates), i] * (
            g[t % len(g), i] + strength * (here - center[t % len(center), i])
        )


@cuda.jit
def adam_step(out, v, a, rates, g, w, n, beta2, rest, eps):
    """v = beta2 w + rest g g and out = a - rates g / (sqrt(v / n) + eps), a thread for each column, so that v may be w."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < out.shape[1]:
        here = g[t % len(g), i]
        v[t, i] = beta2 * w[t % len(w), i] + rest * here * here
        out[t, i] = a[t % len(a), i] - rates[t % len(rates), i] * (
            here / (math.sqrt(v[t, i] / n[0, 0]) + eps)
        )


@cuda.jit
def dot(out, a, b):
    """out = sum a b, a thread for each task, which takes one number after the other."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i == 0:
        total = 0.0
        for p in range(a.shape[1]):
            total += a[t % len(a), p] * b[t % len(b), p]
        out[t, 0] = total


def wide(a, out):
    """A row of rates as long as the rows of `out`."""
    return np.broadcast_to(a, (len(a), out.shape[1]))


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    for_each(step, out.shape[1], [out], [a, wide(rates, out), b])


def vector_scale(out, rates, b):
    """out = rates * b."""
    for_each(scale, out.shape[1], [out], [wide(rates, out), b])


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    for_each(add_rows, total.shape[1], [total], [a])


def vector_move(out, a, s, b):
    """out = a + s b with a number s (T, 1) for each row, and a where s = 0, whatever b holds; out may be a or b."""
    for_each(move, out.shape[1], [out], [a, s, b])


def vector_proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    for_each(
        proximal_step,
        out.shape[1],
        [out],
        [a, wide(rates, out), g, center],
        out.dtype.type(strength),
    )


def vector_adam_step(out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps); n (1, 1), v may be w."""
    beta2, rest, eps = (out.dtype.type(number) for number in (beta2, 1 - beta2, eps))
    for_each(adam_step, out.shape[1], [out, v], [a, wide(rates, out), g, w, n], beta2, rest, eps)


def vector_dot(out, a, b):
    """out (T, 1) = sum a b of each row."""
    for_each(dot, 1, [out], [a, b])
