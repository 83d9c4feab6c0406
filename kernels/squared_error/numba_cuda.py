"""Squared error in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.
"""

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = ["squared_error_forward", "squared_error_backward", "squared_error_r_backward"]


@cuda.jit
def forward(loss, e, z, target, scale):
    """e = z - target and loss = scale sum e^2: a thread for each task."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, D = z.shape[1:]
    if i == 0:
        total = 0.0
        for n in range(N):
            for d in range(D):
                e[t, n, d] = z[t, n, d] - target[t, n, d]
                total += e[t, n, d] * e[t, n, d]
        loss[t] = scale * total


@cuda.jit
def backward(dz, e, scale):
    """dz = 2 scale e, a thread for each number."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, D = e.shape[1:]
    if i < N * D:
        dz[t, i // D, i % D] = 2 * scale * e[t, i // D, i % D]


def squared_error_forward(loss, e, z, target, scale):
    """Fills loss (T,) and the residual e (T, N, D)."""
    for_each(forward, 1, [loss, e], [z, target], scale)


def squared_error_backward(dz, e, scale):
    """dz = 2 scale e."""
    for_each(backward, dz[:1].size, [dz], [e], scale)


def squared_error_r_backward(rdz, rz, scale):
    """rdz = 2 scale rz: the Hessian of a sum of squares is constant."""
    squared_error_backward(rdz, rz, scale)
