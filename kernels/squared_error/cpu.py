"""Squared error on a CPU: see reference.py. Threads take tasks, where there is enough to share."""
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["squared_error_forward", "squared_error_backward", "squared_error_r_backward"]


@njit(error_model="numpy")
def forward_task(e, z, target):
    """Fills e (N, D) and returns the sum of its squares."""
    total = e.dtype.type(0)
    for n in range(e.shape[0]):
        for d in range(e.shape[1]):
            e[n, d] = z[n, d] - target[n, d]
            total += e[n, d] * e[n, d]
    return total


@compiled("losses! table! table table real", grain=64)
def squared_error_forward(loss, e, z, target, scale):
    """Fills loss (T,) and the residual e (T, N, D)."""
    for t in prange(len(z)):
        loss[t] = scale * forward_task(e[t], z[t], target[t])


@compiled("line! line real")
def squared_error_backward(dz, e, scale):
    """dz = 2 scale e."""
    for i in prange(len(e)):
        dz[i] = 2 * scale * e[i]


@compiled("line! line real")
def squared_error_r_backward(rdz, rz, scale):
    """rdz = 2 scale rz."""
    for i in prange(len(rz)):
        rdz[i] = 2 * scale * rz[i]
