"""Batch normalisation in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.

A thread for each (task, channel) reads the channel's M = N L numbers once for the
means, in float64, and again for the results.
"""

import math

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = [
    "batch_norm_forward",
    "batch_norm_backward",
    "batch_norm_r_forward",
    "batch_norm_r_backward",
]


@cuda.jit(device=True)
def mean(a, t, c):
    """<a> over the channel."""
    N, _, L = a.shape[1:]
    total = 0.0
    for n in range(N):
        for l in range(L):
            total += a[t, n, c, l]
    return total / (N * L)


@cuda.jit(device=True)
def mean_of_centred_product(a, centre, b, t, c):
    """<(a - centre) b> over the channel.

    <a> may be many times the deviation of a, and would multiply the rounding of <b>.
    """
    N, _, L = a.shape[1:]
    total = 0.0
    for n in range(N):
        for l in range(L):
            total += (a[t, n, c, l] - centre) * b[t, n, c, l]
    return total / (N * L)


@cuda.jit(device=True)
def mean_of_product(a, b, t, c):
    """<a b> over the channel."""
    N, _, L = a.shape[1:]
    total = 0.0
    for n in range(N):
        for l in range(L):
            total += a[t, n, c, l] * b[t, n, c, l]
    return total / (N * L)


@cuda.jit
def forward(y, xh, s, x, gamma, beta, eps):
    """s = 1 / sqrt(var + eps), xh = s (x - <x>), y = gamma xh + beta."""
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = x.shape[1:]
    if c < C:
        centre, square = mean(x, t, c), 0.0
        for n in range(N):
            for l in range(L):
                square += (x[t, n, c, l] - centre) ** 2
        s[t, c] = 1 / math.sqrt(square / (N * L) + eps)
        for n in range(N):
            for l in range(L):
                xh[t, n, c, l] = s[t, c] * (x[t, n, c, l] - centre)
                y[t, n, c, l] = gamma[t % len(gamma), c] * xh[t, n, c, l] + beta[t % len(beta), c]


@cuda.jit
def backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """dx = s (dxh - <dxh> - xh <dxh xh>), dxh = gamma dy.

    dgamma = sum dy xh, dbeta = sum dy.
    """
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = dy.shape[1:]
    if c < C:
        scale = gamma[t % len(gamma), c]
        centre, projection = mean(dy, t, c), mean_of_product(dy, xh, t, c)
        dgamma[t, c] = N * L * projection
        dbeta[t, c] = N * L * centre
        for n in range(N):
            for l in range(L):
                dx[t, n, c, l] = (
                    s[t, c] * scale * (dy[t, n, c, l] - centre - xh[t, n, c, l] * projection)
                )


@cuda.jit
def r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """rxh = s (rx - <rx> - xh <xh rx>), rs = -s^2 <xh rx>.

    ry = rgamma xh + gamma rxh + rbeta.
    """
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = rx.shape[1:]
    if c < C:
        centre = mean(rx, t, c)
        projection = mean_of_centred_product(rx, centre, xh, t, c)
        rs[t, c] = -s[t, c] * s[t, c] * projection
        for n in range(N):
            for l in range(L):
                rxh[t, n, c, l] = s[t, c] * (rx[t, n, c, l] - centre - xh[t, n, c, l] * projection)
                ry[t, n, c, l] = (
                    rgamma[t % len(rgamma), c] * xh[t, n, c, l]
                    + gamma[t % len(gamma), c] * rxh[t, n, c, l]
                    + rbeta[t % len(rbeta), c]
                )


@cuda.jit
def r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """The product rule on each line of `backward`."""
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = dy.shape[1:]
    if c < C:
        g, rg = gamma[t % len(gamma), c], rgamma[t % len(rgamma), c]
        centre, rcentre, projection = mean(dy, t, c), mean(rdy, t, c), mean_of_product(dy, xh, t, c)
        rprojection = mean_of_product(rdy, xh, t, c) + mean_of_product(dy, rxh, t, c)
        rdgamma[t, c] = N * L * rprojection
        rdbeta[t, c] = N * L * rcentre
        for n in range(N):
            for l in range(L):
                inner = g * (dy[t, n, c, l] - centre - xh[t, n, c, l] * projection)
                rinner = rg * (dy[t, n, c, l] - centre - xh[t, n, c, l] * projection) + g * (
                    rdy[t, n, c, l]
                    - rcentre
                    - rxh[t, n, c, l] * projection
                    - xh[t, n, c, l] * rprojection
                )
                rdx[t, n, c, l] = rs[t, c] * inner + s[t, c] * rinner


def batch_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps)."""
    for_each(forward, y.shape[2], [y, xh, s], [x, gamma, beta], eps)


def batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    for_each(backward, dx.shape[2], [dx, dgamma, dbeta], [dy, xh, s, gamma])


def batch_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    for_each(r_forward, ry.shape[2], [ry, rxh, rs], [rx, xh, s, gamma, rgamma, rbeta])


def batch_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta."""
    for_each(
        r_backward, rdx.shape[2], [rdx, rdgamma, rdbeta], [dy, rdy, xh, s, rxh, rs, gamma, rgamma]
    )
