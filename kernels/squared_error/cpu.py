"""Squared error on a CPU: see reference.py. Threads take tasks, where there is enough to share."""
from numba import prange

from refmaml.kernels.compiled import compiled

__all__ = ["squared_error_forward", "squared_error_backward", "squared_error_r_backward"]


@compiled("losses! table! table table real", grain=256)
def squared_error_forward(loss, e, z, target, scale):
    """Fills loss (T,) and the residual e (T, N, D)."""
    T, N, D = z.shape
    for t in prange(T):
        loss[t] = 0
        for n in range(N):
            for d in range(D):
                e[t, n, d] = z[t, n, d] - target[t, n, d]
                loss[t] += e[t, n, d] * e[t, n, d]
        loss[t] *= scale


@compiled("line! line real")
def squared_error_backward(dz, e, scale):
    """dz = 2 scale e."""
    for i in prange(len(e)):
        dz[i] = 2 * scale * e[i]


def squared_error_r_backward(rdz, rz, scale):
    """rdz = 2 scale rz: the Hessian of a sum of squares is constant."""
    squared_error_backward(rdz, rz, scale)
