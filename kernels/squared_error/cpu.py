"""Squared error on a CPU: the formulas are in reference.py.

Threads take tasks if there is enough work.
"""

from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = ["squared_error_forward", "squared_error_backward", "squared_error_r_backward"]


@inner()
def task_forward(e, z, target, scale):
    """The loss of one task; fills the residual e (N, D)."""
    N, D = z.shape
    total = 0 * scale
    for n in range(N):
        for d in range(D):
            e[n, d] = z[n, d] - target[n, d]
            total += e[n, d] * e[n, d]
    return scale * total


@inner()
def task_backward(dz, e, scale):
    """dz = 2 scale e; dz may be e itself."""
    N, D = e.shape
    for n in range(N):
        for d in range(D):
            dz[n, d] = 2 * scale * e[n, d]


@compiled("losses! table! table table real", grain=256)
def squared_error_forward(loss, e, z, target, scale):
    """Fills loss (T,) and the residual e (T, N, D)."""
    for t in prange(len(z)):
        loss[t] = task_forward(e[t], z[t], target[t], scale)


@compiled("table! table real")
def squared_error_backward(dz, e, scale):
    """dz = 2 scale e."""
    for t in prange(len(e)):
        task_backward(dz[t], e[t], scale)


def squared_error_r_backward(rdz, rz, scale):
    """rdz = 2 scale rz: the Hessian of a sum of squares is constant."""
    squared_error_backward(rdz, rz, scale)
