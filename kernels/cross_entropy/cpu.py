"""Softmax cross-entropy on a CPU: see reference.py. Threads take tasks, where there is enough to share."""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy_r_backward"]


@njit(error_model="numpy")
def forward_task(p, z, labels):
    """Fills p (N, C) and returns sum_n -log p[n, label]."""
    loss = p.dtype.type(0)
    for n in range(len(z)):
        largest, total = z[n].max(), p.dtype.type(0)
        for c in range(z.shape[1]):
            p[n, c] = np.exp(z[n, c] - largest)
            total += p[n, c]
        for c in range(z.shape[1]):
            p[n, c] /= total
        loss += np.log(total) - (z[n, labels[n]] - largest)
    return loss


@compiled("losses! table! table labels real", grain=64)
def cross_entropy_forward(loss, p, z, labels, scale):
    """Fills loss (T,) and the probabilities p (T, N, C)."""
    for t in prange(len(z)):
        loss[t] = scale * forward_task(p[t], z[t], labels[t])


@compiled("table! table labels real")
def cross_entropy_backward(dz, p, labels, scale):
    """dz = scale (p - onehot)."""
    T, N, C = p.shape
    for t in prange(T):
        for n in range(N):
            for c in range(C):
                dz[t, n, c] = scale * (p[t, n, c] - (c == labels[t, n]))


@compiled("table! table table real")
def cross_entropy_r_backward(rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>)."""
    T, N, C = p.shape
    for t in prange(T):
        for n in range(N):
            mean = p[t, n, 0] * rz[t, n, 0]
            for c in range(1, C):
                mean += p[t, n, c] * rz[t, n, c]
            for c in range(C):
                rdz[t, n, c] = scale * p[t, n, c] * (rz[t, n, c] - mean)
