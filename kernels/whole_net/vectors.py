"""Arithmetic on parameter vectors of one task."""

import numpy as np

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined


@external("boolean[::1], F[::1]")
def keep_if_finite(flag, a):
    """flag (1,) stays true only if all elements are finite: a - a is 0 then, and NaN
    otherwise.
    """
    lanes, whole = np.zeros(64, a.dtype), len(a) // 64 * 64
    for i in range(0, whole, 64):
        for j in range(64):
            lanes[j] += a[i + j] - a[i + j]
    for i in range(whole, len(a)):
        lanes[0] += a[i] - a[i]
    for half in (32, 16, 8):
        for j in range(half):
            lanes[j] += lanes[j + half]
    for j in range(8):
        flag[0] = flag[0] and lanes[j] == lanes[j]


@inlined()
def step(out, a, rates, b):
    """out = a - rates * b."""
    for i in range(len(a)):
        out[i] = a[i] - rates[i] * b[i]


@inlined()
def multiply(out, rates, b):
    """out = rates * b."""
    for i in range(len(b)):
        out[i] = rates[i] * b[i]


@inlined()
def subtract(a, b):
    """a -= b."""
    for i in range(len(a)):
        a[i] -= b[i]


@inlined()
def add(a, b):
    """a += b."""
    for i in range(len(a)):
        a[i] += b[i]


@inlined()
def divide(a, count):
    """a /= count, an integer."""
    divisor = a.dtype.type(count)
    for i in range(len(a)):
        a[i] /= divisor
