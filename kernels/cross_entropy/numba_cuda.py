"""Softmax cross-entropy in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.
"""

import math

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy_r_backward"]


@cuda.jit
def forward(loss, p, z, labels, scale):
    """p = softmax(z) and loss = scale sum_n -log p[n, label]: a thread
    for each task.
    """
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C = z.shape[1:]
    if i == 0:
        total_loss = 0.0
        for n in range(N):
            # The largest is subtracted first, so that the exponential cannot overflow.
            largest = z[t, n, 0]
            for c in range(1, C):
                # NaN differs from itself; nothing is larger than NaN, so it stays.
                if z[t, n, c] > largest or z[t, n, c] != z[t, n, c]:
                    largest = z[t, n, c]
            total = 0.0
            for c in range(C):
                p[t, n, c] = math.exp(z[t, n, c] - largest)
                total += p[t, n, c]
            for c in range(C):
                p[t, n, c] /= total
            total_loss += math.log(total) - (z[t, n, labels[t, n]] - largest)
        loss[t] = scale * total_loss


@cuda.jit
def backward(dz, p, labels, scale):
    """dz = scale (p - onehot), a thread for each number."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C = p.shape[1:]
    if i < N * C:
        n, c = i // C, i % C
        dz[t, n, c] = scale * (p[t, n, c] - (c == labels[t, n]))


@cuda.jit
def r_backward(rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>), a thread for each example."""
    t, n = cuda.blockIdx.y, cuda.grid(1)
    N, C = p.shape[1:]
    if n < N:
        mean = 0.0
        for c in range(C):
            mean += p[t, n, c] * rz[t, n, c]
        for c in range(C):
            rdz[t, n, c] = scale * p[t, n, c] * (rz[t, n, c] - mean)


def cross_entropy_forward(loss, p, z, labels, scale):
    """Fills loss (T,) and the probabilities p (T, N, C)."""
    for_each(forward, 1, [loss, p], [z, labels], scale)


def cross_entropy_backward(dz, p, labels, scale):
    """dz = scale (p - onehot)."""
    for_each(backward, dz[:1].size, [dz], [p, labels], scale)


def cross_entropy_r_backward(rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>)."""
    for_each(r_backward, p.shape[1], [rdz], [p, rz], scale)
