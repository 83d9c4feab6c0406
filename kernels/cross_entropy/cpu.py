"""Softmax cross-entropy on a CPU: the formulas are in reference.py.

Threads take tasks if there is enough work.
"""

import math

from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy_r_backward"]


@inner()
def task_forward(p, z, labels, scale):
    """The loss of one task; fills p (N, C)."""
    N, C = z.shape
    loss = 0 * scale
    for n in range(N):
        largest = z[n, 0]
        for c in range(1, C):
            largest = max(largest, z[n, c])
        total, of_label = 0 * largest, z[n, labels[n]]
        for c in range(C):
            p[n, c] = math.exp(z[n, c] - largest)
            total += p[n, c]
        for c in range(C):
            p[n, c] /= total
        loss += scale * (math.log(total) - (of_label - largest))
    return loss


@inner()
def task_backward(dz, p, labels, scale):
    """dz = scale (p - onehot); dz may be p itself."""
    N, C = p.shape
    for n in range(N):
        for c in range(C):
            dz[n, c] = scale * (p[n, c] - (c == labels[n]))


@inner()
def task_r_backward(rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>)."""
    N, C = p.shape
    for n in range(N):
        mean = 0 * scale
        for c in range(C):
            mean += p[n, c] * rz[n, c]
        for c in range(C):
            rdz[n, c] = scale * p[n, c] * (rz[n, c] - mean)


@compiled("losses! table! table labels real", grain=256)
def cross_entropy_forward(loss, p, z, labels, scale):
    """Fills loss (T,) and the probabilities p (T, N, C)."""
    for t in prange(len(z)):
        loss[t] = task_forward(p[t], z[t], labels[t], scale)


@compiled("table! table labels real")
def cross_entropy_backward(dz, p, labels, scale):
    """dz = scale (p - onehot)."""
    for t in prange(len(p)):
        task_backward(dz[t], p[t], labels[t], scale)


@compiled("table! table table real")
def cross_entropy_r_backward(rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>)."""
    for t in prange(len(p)):
        task_r_backward(rdz[t], p[t], rz[t], scale)
