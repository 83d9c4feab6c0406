"""A number per channel in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.
"""

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = ["bias_forward", "bias_backward"]


@cuda.jit
def add(y, b):
    """y[t,n,c,l] += b[t,c], a thread for each (n, c, l)."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = y.shape[1:]
    if i < N * C * L:
        n, c, l = i // (C * L), i // L % C, i % L
        y[t, n, c, l] += b[t % len(b), c]


@cuda.jit
def sum_up(db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l], a thread for each c."""
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = dy.shape[1:]
    if c < C:
        total = 0.0  # float64, whatever the precision of the arrays
        for n in range(N):
            for l in range(L):
                total += dy[t, n, c, l]
        db[t, c] = total


def bias_forward(y, b):
    """y += b, broadcast over examples and positions."""
    for_each(add, y[:1].size, [y], [b])


def bias_backward(db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l]."""
    for_each(sum_up, db.shape[1], [db], [dy])
