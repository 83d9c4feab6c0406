"""Batch-norm, activation and max-pooling in one pass in Numba CUDA.

The formulas and the arguments are in reference.py. The kernels have not been run on a
GPU yet; the tests run them on Numba's simulator.

A thread for each (task, channel) reads the channel's pixels once for the sums, in
float64, and again for the results. `mean` and `rmean` are stored in the precision of
the arrays; where they may be many times the standard deviation, their rounding matters,
so each kernel computes them again in float64.
"""

import math

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = [
    "norm_act_pool_forward",
    "norm_act_pool_backward",
    "norm_act_pool_r_forward",
    "norm_act_pool_r_backward",
]


@cuda.jit(device=True)
def leaky_relu(u, slope):
    """u where u > 0, slope u elsewhere; NaN stays NaN, and 0 times infinity is 0."""
    if u <= 0:
        return slope * u if slope != 0 else 0.0
    return u


@cuda.jit(device=True)
def derivative(y, slope):
    """The activation's derivative at the winning u, from its value y."""
    return slope if y <= 0 else 1.0


@cuda.jit(device=True)
def winner(place, t, n, c, a, b, kH, kW):
    """The pixel (i, j) that won window (a, b)."""
    if kH == 1 and kW == 1:
        return a, b
    return a * kH + place[t, n, c, a, b] // kW, b * kW + place[t, n, c, a, b] % kW


@cuda.jit(device=True)
def du_at(dy, y, place, t, n, c, i, j, slope, kH, kW):
    """The adjoint of u at a pixel: that of its window if it won, else 0."""
    a, b = i // kH, j // kW
    if a < y.shape[3] and b < y.shape[4]:
        p, q = winner(place, t, n, c, a, b, kH, kW)
        if p == i and q == j:
            return derivative(y[t, n, c, a, b], slope) * dy[t, n, c, a, b]
    return 0.0


@cuda.jit(device=True)
def mean_from(origin, a, t, c):
    """<a> over the channel in float64, by adding differences to a value near it."""
    N, _, H, W = a.shape[1:]
    total = 0.0
    for n in range(N):
        for i in range(H):
            for j in range(W):
                total += a[t, n, c, i, j] - origin
    return origin + total / (N * H * W)


@cuda.jit
def forward(y, place, mean, s, x, gamma, beta, eps, slope, kH, kW):
    """xh = s (x - <x>), y = the largest of leaky_relu(gamma xh + beta) in each window.

    The first of equals wins; NaN wins over every number.
    """
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, H, W = x.shape[1:]
    if c < C:
        centre, square = mean_from(x[t, 0, c, 0, 0], x, t, c), 0.0
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    square += (x[t, n, c, i, j] - centre) ** 2
        scale = 1 / math.sqrt(square / (N * H * W) + eps)
        mean[t, c], s[t, c] = centre, scale
        for n in range(N):
            for a in range(y.shape[3]):
                for b in range(y.shape[4]):
                    best, won = 0.0, -1
                    for k in range(kH * kW):
                        xh = scale * (x[t, n, c, a * kH + k // kW, b * kW + k % kW] - centre)
                        value = leaky_relu(
                            gamma[t % len(gamma), c] * xh + beta[t % len(beta), c], slope
                        )
                        if won < 0 or value > best or (value != value and best == best):
                            best, won = value, k
                    y[t, n, c, a, b] = best
                    if kH * kW > 1:
                        place[t, n, c, a, b] = won


@cuda.jit
def backward(dx, dgamma, dbeta, dy, y, place, x, mean, s, gamma, slope, kH, kW):
    """dx = s gamma (du - <du> - xh <du xh>); dgamma = sum du xh, dbeta = sum du."""
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, H, W = x.shape[1:]
    if c < C:
        total, product, M = 0.0, 0.0, N * H * W
        centre = mean_from(mean[t, c], x, t, c)
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    du = du_at(dy, y, place, t, n, c, i, j, slope, kH, kW)
                    total += du
                    product += du * (s[t, c] * (x[t, n, c, i, j] - centre))
        dgamma[t, c], dbeta[t, c] = product, total
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    du = du_at(dy, y, place, t, n, c, i, j, slope, kH, kW)
                    xh = s[t, c] * (x[t, n, c, i, j] - centre)
                    dx[t, n, c, i, j] = (
                        s[t, c] * gamma[t % len(gamma), c] * (du - total / M - xh * product / M)
                    )


@cuda.jit
def r_forward(ry, rmean, incline, rx, y, place, x, mean, s, gamma, rgamma, rbeta, slope, kH, kW):
    """rxh = s (rx - <rx> - xh <xh rx>).

    ry = f'(u) (rgamma xh + gamma rxh + rbeta) at the winners.
    """
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, H, W = x.shape[1:]
    if c < C:
        product, M = 0.0, N * H * W
        centre, rcentre = mean_from(mean[t, c], x, t, c), mean_from(rx[t, 0, c, 0, 0], rx, t, c)
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    xh = s[t, c] * (x[t, n, c, i, j] - centre)
                    product += xh * (rx[t, n, c, i, j] - rcentre)
        rmean[t, c], incline[t, c] = rcentre, product / M
        for n in range(N):
            for a in range(y.shape[3]):
                for b in range(y.shape[4]):
                    i, j = winner(place, t, n, c, a, b, kH, kW)
                    xh = s[t, c] * (x[t, n, c, i, j] - centre)
                    rxh = s[t, c] * (rx[t, n, c, i, j] - rcentre - xh * product / M)
                    ru = (
                        rgamma[t % len(rgamma), c] * xh
                        + gamma[t % len(gamma), c] * rxh
                        + rbeta[t % len(rbeta), c]
                    )
                    ry[t, n, c, a, b] = derivative(y[t, n, c, a, b], slope) * ru


# fmt: off
@cuda.jit
def r_backward(rdx, rdgamma, rdbeta, dy, rdy, y, place, x, mean, s, rx, rmean, incline, gamma,
               rgamma, slope, kH, kW):
    """The product rule on `backward`, with rs = -s^2 <xh rx>.

    The tangent of <du xh> is <rdu xh + du rxh>.
    """
    t, c = cuda.blockIdx.y, cuda.grid(1)
    N, C, H, W = x.shape[1:]
    if c < C:
        g, rg, scale, M = gamma[t % len(gamma), c], rgamma[t % len(rgamma), c], s[t, c], N * H * W
        centre, rcentre = mean_from(mean[t, c], x, t, c), mean_from(rmean[t, c], rx, t, c)
        total, rtotal, product, rproduct = 0.0, 0.0, 0.0, 0.0
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    du = du_at(dy, y, place, t, n, c, i, j, slope, kH, kW)
                    rdu = du_at(rdy, y, place, t, n, c, i, j, slope, kH, kW)
                    xh = scale * (x[t, n, c, i, j] - centre)
                    rxh = scale * (rx[t, n, c, i, j] - rcentre - xh * incline[t, c])
                    total += du
                    rtotal += rdu
                    product += du * xh
                    rproduct += rdu * xh + du * rxh
        rdgamma[t, c], rdbeta[t, c] = rproduct, rtotal
        for n in range(N):
            for i in range(H):
                for j in range(W):
                    du = du_at(dy, y, place, t, n, c, i, j, slope, kH, kW)
                    rdu = du_at(rdy, y, place, t, n, c, i, j, slope, kH, kW)
                    xh = scale * (x[t, n, c, i, j] - centre)
                    rxh = scale * (rx[t, n, c, i, j] - rcentre - xh * incline[t, c])
                    inner = du - total / M - xh * product / M
                    rinner = rdu - rtotal / M - rxh * product / M - xh * rproduct / M
                    rs = -scale * scale * incline[t, c]
                    rdx[t, n, c, i, j] = rs * g * inner + scale * (rg * inner + g * rinner)
# fmt: on


def norm_act_pool_forward(y, place, mean, s, x, gamma, beta, eps, slope, window):
    """Fills y, place, mean and s."""
    for_each(forward, x.shape[2], [y, place, mean, s], [x, gamma, beta], eps, slope, *window)


def norm_act_pool_backward(dx, dgamma, dbeta, dy, y, place, x, mean, s, gamma, slope, window):
    """Fills dx, dgamma = sum du xh, dbeta = sum du."""
    for_each(
        backward, x.shape[2], [dx, dgamma, dbeta], [dy, y, place, x, mean, s, gamma], slope, *window
    )


def norm_act_pool_r_forward(
    ry, rmean, incline, rx, y, place, x, mean, s, gamma, rgamma, rbeta, slope, window
):
    """Fills ry, rmean and incline along (rx, rgamma, rbeta)."""
    for_each(
        r_forward,
        x.shape[2],
        [ry, rmean, incline],
        [rx, y, place, x, mean, s, gamma, rgamma, rbeta],
        slope,
        *window,
    )


def norm_act_pool_r_backward(
    rdx, rdgamma, rdbeta, dy, rdy, y, place, x, mean, s, rx, rmean, incline, gamma, rgamma, slope,
    window,
):  # fmt: skip
    """Fills rdx, rdgamma, rdbeta."""
    for_each(
        r_backward,
        x.shape[2],
        [rdx, rdgamma, rdbeta],
        [dy, rdy, y, place, x, mean, s, rx, rmean, incline, gamma, rgamma],
        slope,
        *window,
    )
