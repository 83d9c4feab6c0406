"""Batch normalisation on a CPU: the formulas are in reference.py.

Arrays are (T, M, C): a row of channels for each of M = N L pixels. Threads take tasks.
A sum over pixels is a row of C sums. The compiler adds many channels at once, and yet
every channel adds its pixels in order. The sums are float64, because a thousand float32
additions in a row lose a digit. Every pass reads its arrays once for the sums and once
for the result.

The means of dxh = gamma dy need no pass of their own, because gamma is the same for all
pixels: <dxh> = gamma <dy>, <dxh xh> = gamma <dy xh>.

The mean of x may be many times its standard deviation. Rounding it would leave the same
offset in every xh, and <xh rx> would multiply the offset by <rx>. So x is centred
twice, as x - <x> - <x - <x>>; both passes over x are needed anyway. In the same way rx
is measured from its first pixel in each channel, which differs from the mean by at most
sqrt(M) standard deviations.
"""

import numpy as np
from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = [
    "batch_norm_forward",
    "batch_norm_backward",
    "batch_norm_r_forward",
    "batch_norm_r_backward",
]


@inner()
def row_of(a, t, C, like):
    """The C numbers of task t, contiguous; a is (T, C), or (1, C) if tasks share it."""
    row = np.empty(C, like.dtype)
    for c in range(C):
        row[c] = a[t % len(a), c]
    return row


@inner()
def inverse_deviation(mean, square, eps):
    """1 / sqrt(var + eps) from the means of a - K and (a - K)^2, with K near <a>."""
    variance = square - mean * mean
    if variance < 0:  # by rounding
        variance = 0.0
    return 1 / np.sqrt(variance + eps)


@compiled("pixels! pixels! rows! pixels rows rows real")
def batch_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps).

    The variance is that of centred values.
    """
    T, M, C = x.shape
    for t in prange(T):
        g, b = row_of(gamma, t, C, x), row_of(beta, t, C, x)
        total, rest, square = np.zeros(C), np.zeros(C), np.zeros(C)
        mean, offset, scale = np.empty_like(g), np.empty_like(g), np.empty_like(g)
        for m in range(M):
            for c in range(C):
                total[c] += x[t, m, c]
        for c in range(C):
            mean[c] = total[c] / M
        for m in range(M):
            for c in range(C):
                rest[c] += x[t, m, c] - mean[c]
                square[c] += (x[t, m, c] - mean[c]) * (x[t, m, c] - mean[c])
        for c in range(C):
            offset[c] = rest[c] / M
            scale[c] = inverse_deviation(rest[c] / M, square[c] / M, eps)
            s[t, c] = scale[c]
        for m in range(M):
            for c in range(C):
                normalised = scale[c] * (x[t, m, c] - mean[c] - offset[c])
                xh[t, m, c] = normalised
                y[t, m, c] = g[c] * normalised + b[c]


@compiled("pixels! rows! rows! pixels pixels rows rows")
def batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    T, M, C = dy.shape
    for t in prange(T):
        scale, total, product = row_of(s, t, C, dy), np.zeros(C), np.zeros(C)
        mean, projection = np.empty(C, dy.dtype), np.empty(C, dy.dtype)
        for m in range(M):
            for c in range(C):
                total[c] += dy[t, m, c]
                product[c] += dy[t, m, c] * xh[t, m, c]
        for c in range(C):
            dbeta[t, c] = total[c]
            dgamma[t, c] = product[c]
            mean[c] = total[c] / M
            projection[c] = product[c] / M
            scale[c] *= gamma[t % len(gamma), c]
        for m in range(M):
            for c in range(C):
                dx[t, m, c] = scale[c] * (dy[t, m, c] - mean[c] - xh[t, m, c] * projection[c])


@compiled("pixels! pixels! rows! pixels pixels rows rows rows rows")
def batch_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    T, M, C = rx.shape
    for t in prange(T):
        scale, total, product = row_of(s, t, C, rx), np.zeros(C), np.zeros(C)
        mean, projection, origin = np.empty_like(scale), np.empty_like(scale), np.zeros_like(scale)
        g, rg, rb = row_of(gamma, t, C, rx), row_of(rgamma, t, C, rx), row_of(rbeta, t, C, rx)
        if M > 0:
            origin[:] = rx[t, 0]
        for m in range(M):
            for c in range(C):
                total[c] += rx[t, m, c] - origin[c]
                product[c] += (rx[t, m, c] - origin[c]) * xh[t, m, c]
        for c in range(C):
            mean[c] = total[c] / M
            projection[c] = product[c] / M
            rs[t, c] = -scale[c] * scale[c] * projection[c]
        for m in range(M):
            for c in range(C):
                centred = rx[t, m, c] - origin[c] - mean[c]
                tangent = scale[c] * (centred - xh[t, m, c] * projection[c])
                rxh[t, m, c] = tangent
                ry[t, m, c] = rg[c] * xh[t, m, c] + g[c] * tangent + rb[c]


@compiled("pixels! rows! rows! pixels pixels pixels rows pixels rows rows rows")
def batch_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta: the product rule on `batch_norm_backward`."""
    T, M, C = dy.shape
    for t in prange(T):
        scale, rscale = row_of(s, t, C, dy), row_of(rs, t, C, dy)
        g, rg = row_of(gamma, t, C, dy), row_of(rgamma, t, C, dy)
        total, rtotal, product, rproduct = np.zeros(C), np.zeros(C), np.zeros(C), np.zeros(C)
        mean, rmean = np.empty_like(g), np.empty_like(g)
        projection, rprojection = np.empty_like(g), np.empty_like(g)
        for m in range(M):
            for c in range(C):
                total[c] += dy[t, m, c]
                rtotal[c] += rdy[t, m, c]
                product[c] += dy[t, m, c] * xh[t, m, c]
                rproduct[c] += rdy[t, m, c] * xh[t, m, c] + dy[t, m, c] * rxh[t, m, c]
        for c in range(C):  # sums over dy; then means over dxh = gamma dy
            rdbeta[t, c] = rtotal[c]
            rdgamma[t, c] = rproduct[c]
            mean[c] = g[c] * total[c] / M
            projection[c] = g[c] * product[c] / M
            rmean[c] = (rg[c] * total[c] + g[c] * rtotal[c]) / M
            rprojection[c] = (rg[c] * product[c] + g[c] * rproduct[c]) / M
        for m in range(M):
            for c in range(C):
                inner = g[c] * dy[t, m, c] - mean[c] - xh[t, m, c] * projection[c]
                rinner = (
                    rg[c] * dy[t, m, c]
                    + g[c] * rdy[t, m, c]
                    - rmean[c]
                    - rxh[t, m, c] * projection[c]
                    - xh[t, m, c] * rprojection[c]
                )
                rdx[t, m, c] = rscale[c] * inner + scale[c] * rinner
