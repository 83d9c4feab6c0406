"""Arithmetic on parameter vectors of one task."""

import numpy as np

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner


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


@inner()
def is_finite(a):
    """Whether a number is neither infinite nor NaN."""
    return a - a == a - a


@inner()
def require_finite(flag, loss, gradient):
    """flag (1,) stays true only if loss (1,) and gradient are finite."""
    keep_if_finite(flag, loss)
    keep_if_finite(flag, gradient)


@inner()
def copy(out, a):
    """out = a."""
    for i in range(len(out)):
        out[i] = a[i]


@inner()
def add_product(lanes, a, b):
    """lanes (32,) += the products of a and b, at most BLOCK numbers."""
    whole = len(a) // 32 * 32
    for i in range(0, whole, 32):
        for j in range(32):
            lanes[j] += a[i + j] * b[i + j]
    for i in range(whole, len(a)):
        lanes[0] += a[i] * b[i]


@inner()
def difference(out, a, b):
    """out = a - b."""
    for i in range(len(out)):
        out[i] = a[i] - b[i]


@inner()
def move(out, a, s, b):
    """out = a + s b; a where s = 0, whatever b is."""
    if s == 0:
        copy(out, a)
    else:
        for i in range(len(out)):
            out[i] = a[i] + s * b[i]


@inner()
def scaled(out, s, b):
    """out = s b."""
    for i in range(len(out)):
        out[i] = s * b[i]


@inner()
def add_scaled(out, s, b):
    """out += s b; nothing where s = 0, whatever b is."""
    if s != 0:
        for i in range(len(out)):
            out[i] += s * b[i]


@inner()
def shrink_and_add(out, s, a):
    """out = a + s out; a where s = 0, whatever out was."""
    if s == 0:
        copy(out, a)
    else:
        for i in range(len(out)):
            out[i] = a[i] + s * out[i]
