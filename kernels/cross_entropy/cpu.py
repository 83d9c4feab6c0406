"""Softmax cross-entropy on a CPU: see reference.py. Threads take tasks, where there is enough to share."""
import math

from numba import prange

from refmaml.kernels.compiled import compiled

__all__ = ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy_r_backward"]


@compiled("losses! table! table labels real", grain=256)
def cross_entropy_forward(loss, p, z, labels, scale):
    """Fills loss (T,) and the probabilities p (T, N, C)."""
    T, N, C = z.shape
    for t in prange(T):
        loss[t] = 0
        for n in range(N):
            largest = z[t, n, 0]
            for c in range(1, C):
                largest = max(largest, z[t, n, c])
            total = 0 * largest
            for c in range(C):
                p[t, n, c] = math.exp(z[t, n, c] - largest)
                total += p[t, n, c]
            for c in range(C):
                p[t, n, c] /= total
            loss[t] += scale * (math.log(total) - (z[t, n, labels[t, n]] - largest))


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
            mean = 0 * scale
            for c in range(C):
                mean += p[t, n, c] * rz[t, n, c]
            for c in range(C):
                rdz[t, n, c] = scale * p[t, n, c] * (rz[t, n, c] - mean)
