"""Feature-wise linear modulation in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.
"""

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = ["film_forward", "film_backward", "film_r_forward", "film_r_backward"]


@cuda.jit
def forward(y, x, gamma, beta):
    """y = gamma x + beta, a thread for each (n, c, l)."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = x.shape[1:]
    if i < N * C * L:
        n, c, l = i // (C * L), i // L % C, i % L
        y[t, n, c, l] = gamma[t % len(gamma), c] * x[t, n, c, l] + beta[t % len(beta), c]


@cuda.jit
def backward(dx, dgamma, dbeta, dy, x, gamma):
    """dx = gamma dy, dgamma = sum dy x, dbeta = sum dy: a thread for each c."""
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = x.shape[1:]
    if c < C:
        product, total = 0.0, 0.0
        for n in range(N):
            for l in range(L):
                dx[t, n, c, l] = gamma[t % len(gamma), c] * dy[t, n, c, l]
                product += dy[t, n, c, l] * x[t, n, c, l]
                total += dy[t, n, c, l]
        dgamma[t, c] = product
        dbeta[t, c] = total


@cuda.jit
def r_forward(ry, x, rx, gamma, rgamma, rbeta):
    """ry = gamma rx + rgamma x + rbeta, a thread for each (n, c, l)."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = x.shape[1:]
    if i < N * C * L:
        n, c, l = i // (C * L), i // L % C, i % L
        ry[t, n, c, l] = (
            gamma[t % len(gamma), c] * rx[t, n, c, l]
            + rgamma[t % len(rgamma), c] * x[t, n, c, l]
            + rbeta[t % len(rbeta), c]
        )


@cuda.jit
def r_backward(rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    """The product rule on each line of `backward`: a thread for each c."""
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = x.shape[1:]
    if c < C:
        product, total = 0.0, 0.0
        for n in range(N):
            for l in range(L):
                rdx[t, n, c, l] = (
                    gamma[t % len(gamma), c] * rdy[t, n, c, l]
                    + rgamma[t % len(rgamma), c] * dy[t, n, c, l]
                )
                product += rdy[t, n, c, l] * x[t, n, c, l] + dy[t, n, c, l] * rx[t, n, c, l]
                total += rdy[t, n, c, l]
        rdgamma[t, c] = product
        rdbeta[t, c] = total


def film_forward(y, x, gamma, beta):
    """y = gamma x + beta."""
    for_each(forward, y[:1].size, [y], [x, gamma, beta])


def film_backward(dx, dgamma, dbeta, dy, x, gamma):
    """dx = gamma dy, dgamma = sum dy x, dbeta = sum dy."""
    for_each(backward, dy.shape[2], [dx, dgamma, dbeta], [dy, x, gamma])


def film_r_forward(ry, x, rx, gamma, rgamma, rbeta):
    """ry = gamma rx + rgamma x + rbeta."""
    for_each(r_forward, ry[:1].size, [ry], [x, rx, gamma, rgamma, rbeta])


def film_r_backward(rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    """The product rule on each line of `film_backward`."""
    for_each(r_backward, dy.shape[2], [rdx, rdgamma, rdbeta], [dy, rdy, x, rx, gamma, rgamma])
