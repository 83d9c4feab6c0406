"""Normalisation over groups of one example in Numba CUDA.

reference.py has the formulas. The kernels have not been run on a GPU yet; the tests run
them on Numba's simulator.

A thread for each (task, example, group) reads the numbers of the group once for each
mean, in float64, and again for the results. A thread for each entry of gamma sums over
the numbers that share it.
"""

import math

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = [
    "group_norm_forward",
    "group_norm_backward",
    "group_norm_r_forward",
    "group_norm_r_backward",
]


@cuda.jit(device=True)
def mean(a, t, n, first, last):
    """<a> over the channels from `first` to before `last` of one example."""
    L, total = a.shape[3], 0.0
    for c in range(first, last):
        for l in range(L):
            total += a[t, n, c, l]
    return total / ((last - first) * L)


@cuda.jit
def forward(y, xh, s, x, gamma, beta, eps):
    """s = 1 / sqrt(var + eps), xh = s (x - <x>), y = gamma xh + beta."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = x.shape[1:]
    G, A = s.shape[2], gamma.shape[2]
    if i < N * G:
        n, g, D = i // G, i % G, C // G
        first, last, square = g * D, (g + 1) * D, 0.0
        centre = mean(x, t, n, first, last)
        for c in range(first, last):
            for l in range(L):
                square += (x[t, n, c, l] - centre) ** 2
        s[t, n, g] = 1 / math.sqrt(square / (D * L) + eps)
        for c in range(first, last):
            for l in range(L):
                xh[t, n, c, l] = s[t, n, g] * (x[t, n, c, l] - centre)
                y[t, n, c, l] = (
                    gamma[t % len(gamma), c, l % A] * xh[t, n, c, l] + beta[t % len(beta), c, l % A]
                )


@cuda.jit
def backward(dx, dy, xh, s, gamma):
    """dx = s (dxh - <dxh> - xh <dxh xh>), dxh = gamma dy."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = dy.shape[1:]
    G, A = s.shape[2], gamma.shape[2]
    if i < N * G:
        n, g, D = i // G, i % G, C // G
        total, product = 0.0, 0.0
        for c in range(g * D, (g + 1) * D):
            for l in range(L):
                dxh = gamma[t % len(gamma), c, l % A] * dy[t, n, c, l]
                total += dxh
                product += dxh * xh[t, n, c, l]
        centre, slope = total / (D * L), product / (D * L)
        for c in range(g * D, (g + 1) * D):
            for l in range(L):
                dxh = gamma[t % len(gamma), c, l % A] * dy[t, n, c, l]
                dx[t, n, c, l] = s[t, n, g] * (dxh - centre - xh[t, n, c, l] * slope)


@cuda.jit
def r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """rc = rx - <rx>, rxh = s (rc - xh <xh rc>), rs = -s^2 <xh rc>.

    ry = rgamma xh + gamma rxh + rbeta.
    """
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = rx.shape[1:]
    G, A = s.shape[2], gamma.shape[2]
    if i < N * G:
        n, g, D = i // G, i % G, C // G
        first, last, slope = g * D, (g + 1) * D, 0.0
        centre = mean(rx, t, n, first, last)
        for c in range(first, last):
            for l in range(L):
                slope += xh[t, n, c, l] * (rx[t, n, c, l] - centre) / (D * L)
        rs[t, n, g] = -s[t, n, g] * s[t, n, g] * slope
        for c in range(first, last):
            for l in range(L):
                rxh[t, n, c, l] = s[t, n, g] * (rx[t, n, c, l] - centre - xh[t, n, c, l] * slope)
                ry[t, n, c, l] = (
                    rgamma[t % len(rgamma), c, l % A] * xh[t, n, c, l]
                    + gamma[t % len(gamma), c, l % A] * rxh[t, n, c, l]
                    + rbeta[t % len(rbeta), c, l % A]
                )


@cuda.jit
def r_backward(rdx, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """The product rule on each line of `backward`."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    N, C, L = dy.shape[1:]
    G, A = s.shape[2], gamma.shape[2]
    if i < N * G:
        n, g, D = i // G, i % G, C // G
        total, rtotal, product, rproduct = 0.0, 0.0, 0.0, 0.0
        for c in range(g * D, (g + 1) * D):
            for l in range(L):
                scale, rscale = gamma[t % len(gamma), c, l % A], rgamma[t % len(rgamma), c, l % A]
                dxh = scale * dy[t, n, c, l]
                rdxh = rscale * dy[t, n, c, l] + scale * rdy[t, n, c, l]
                total += dxh
                rtotal += rdxh
                product += dxh * xh[t, n, c, l]
                rproduct += rdxh * xh[t, n, c, l] + dxh * rxh[t, n, c, l]
        M = D * L
        for c in range(g * D, (g + 1) * D):
            for l in range(L):
                scale, rscale = gamma[t % len(gamma), c, l % A], rgamma[t % len(rgamma), c, l % A]
                inner = scale * dy[t, n, c, l] - total / M - xh[t, n, c, l] * (product / M)
                rinner = (
                    rscale * dy[t, n, c, l]
                    + scale * rdy[t, n, c, l]
                    - rtotal / M
                    - rxh[t, n, c, l] * (product / M)
                    - xh[t, n, c, l] * (rproduct / M)
                )
                rdx[t, n, c, l] = rs[t, n, g] * inner + s[t, n, g] * rinner


@cuda.jit
def parameters_backward(dgamma, dbeta, dy, xh):
    """dgamma = sum dy xh, dbeta = sum dy over the numbers that share an entry."""
    t, p = cuda.blockIdx.y, cuda.grid(1)
    C, A = dgamma.shape[1:]
    N, _, L = dy.shape[1:]
    if p < C * A:
        c, a, product, total = p // A, p % A, 0.0, 0.0
        for n in range(N):
            for l in range(a, L, A):
                product += dy[t, n, c, l] * xh[t, n, c, l]
                total += dy[t, n, c, l]
        dgamma[t, c, a] = product
        dbeta[t, c, a] = total


@cuda.jit
def parameters_r_backward(rdgamma, rdbeta, dy, rdy, xh, rxh):
    """The product rule on each line of `parameters_backward`."""
    t, p = cuda.blockIdx.y, cuda.grid(1)
    C, A = rdgamma.shape[1:]
    N, _, L = dy.shape[1:]
    if p < C * A:
        c, a, product, total = p // A, p % A, 0.0, 0.0
        for n in range(N):
            for l in range(a, L, A):
                product += rdy[t, n, c, l] * xh[t, n, c, l] + dy[t, n, c, l] * rxh[t, n, c, l]
                total += rdy[t, n, c, l]
        rdgamma[t, c, a] = product
        rdbeta[t, c, a] = total


def groups(s):
    """The groups of all examples of a task."""
    return s.shape[1] * s.shape[2]


def entries(gamma):
    """The entries of gamma (T, C, A) of a task."""
    return gamma.shape[1] * gamma.shape[2]


def group_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps)."""
    for_each(forward, groups(s), [y, xh, s], [x, gamma, beta], eps)


def group_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    for_each(backward, groups(s), [dx], [dy, xh, s, gamma])
    for_each(parameters_backward, entries(dgamma), [dgamma, dbeta], [dy, xh])


def group_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    for_each(r_forward, groups(s), [ry, rxh, rs], [rx, xh, s, gamma, rgamma, rbeta])


def group_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta: the product rule on `group_norm_backward`."""
    for_each(r_backward, groups(s), [rdx], [dy, rdy, xh, s, rxh, rs, gamma, rgamma])
    for_each(parameters_r_backward, entries(rdgamma), [rdgamma, rdbeta], [dy, rdy, xh, rxh])
