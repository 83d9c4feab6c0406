"""Batch normalisation on a CPU: see reference.py for the formulas. Arrays come as (T, M, C): a row of channels for each of M = N L pixels.

Threads take tasks. A sum over pixels is a running row of C sums, so that the compiler can add many channels at once and yet every
channel adds its pixels one by one, in order: in float64, as a thousand float32 additions in a row would lose a digit. Every pass
reads its arrays twice: once for the sums, once for the result.

The means over dxh = gamma dy need no pass of their own: gamma is constant over pixels, so <dxh> = gamma <dy>, <dxh xh> = gamma <dy xh>.
"""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["batch_norm_forward", "batch_norm_backward", "batch_norm_r_forward", "batch_norm_r_backward"]


@njit(error_model="numpy")
def sums(a):
    """Sums over the rows of a (M, C)."""
    total = np.zeros(a.shape[1], np.float64)
    for m in range(len(a)):
        line = a[m]
        for c in range(len(line)):
            total[c] += line[c]
    return total.astype(a.dtype)


@njit(error_model="numpy")
def sums_of_products(a, b):
    """Sums over rows of a, and of a b."""
    total, products = np.zeros(a.shape[1], np.float64), np.zeros(a.shape[1], np.float64)
    for m in range(len(a)):
        line, other = a[m], b[m]
        for c in range(len(line)):
            total[c] += line[c]
            products[c] += line[c] * other[c]
    return total.astype(a.dtype), products.astype(a.dtype)


@njit(error_model="numpy")
def forward_task(y, xh, s, x, gamma, beta, eps):
    M, C = x.shape
    gamma, beta, mean, square, scale = gamma.copy(), beta.copy(), sums(x), np.zeros(C, np.float64), np.empty(C, x.dtype)
    for c in range(C):
        mean[c] /= M
    for m in range(M):
        line = x[m]
        for c in range(C):
            square[c] += (line[c] - mean[c]) * (line[c] - mean[c])
    for c in range(C):
        scale[c] = 1 / np.sqrt(square[c] / M + eps)
    s[:] = scale
    for m in range(M):
        line, hat, out = x[m], xh[m], y[m]
        for c in range(C):
            hat[c] = scale[c] * (line[c] - mean[c])
            out[c] = gamma[c] * hat[c] + beta[c]


@compiled("pixels! pixels! rows! pixels rows rows real")
def batch_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps). The variance is of centred values."""
    for t in prange(len(x)):
        forward_task(y[t], xh[t], s[t], x[t], gamma[t % len(gamma)], beta[t % len(beta)], eps)


@njit(error_model="numpy")
def backward_task(dx, dgamma, dbeta, dy, xh, s, gamma):
    M, C = dy.shape
    dy_mean, slope = sums_of_products(dy, xh)
    dbeta[:], dgamma[:] = dy_mean, slope
    scale = np.empty(C, dy.dtype)
    for c in range(C):
        dy_mean[c] /= M
        slope[c] /= M
        scale[c] = s[c] * gamma[c]
    for m in range(M):
        line, hat, out = dy[m], xh[m], dx[m]
        for c in range(C):
            out[c] = scale[c] * (line[c] - dy_mean[c] - hat[c] * slope[c])


@compiled("pixels! rows! rows! pixels pixels rows rows")
def batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    for t in prange(len(dy)):
        backward_task(dx[t], dgamma[t], dbeta[t], dy[t], xh[t], s[t], gamma[t % len(gamma)])


@njit(error_model="numpy")
def r_forward_task(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    M, C = rx.shape
    gamma, rgamma, rbeta, scale = gamma.copy(), rgamma.copy(), rbeta.copy(), s.copy()
    rx_mean, slope = sums_of_products(rx, xh)
    for c in range(C):
        rx_mean[c] /= M
        slope[c] /= M
        rs[c] = -scale[c] * scale[c] * slope[c]
    for m in range(M):
        line, hat, rhat, out = rx[m], xh[m], rxh[m], ry[m]
        for c in range(C):
            rhat[c] = scale[c] * (line[c] - rx_mean[c] - hat[c] * slope[c])
            out[c] = rgamma[c] * hat[c] + gamma[c] * rhat[c] + rbeta[c]


@compiled("pixels! pixels! rows! pixels pixels rows rows rows rows")
def batch_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    for t in prange(len(rx)):
        r_forward_task(ry[t], rxh[t], rs[t], rx[t], xh[t], s[t],
                       gamma[t % len(gamma)], rgamma[t % len(rgamma)], rbeta[t % len(rbeta)])


@njit(error_model="numpy")
def r_backward_sums(dy, rdy, xh, rxh):
    """Sums over rows of dy, rdy, dy xh and of the tangent of that product."""
    C = dy.shape[1]
    a, ra, b, rb = np.zeros(C, np.float64), np.zeros(C, np.float64), np.zeros(C, np.float64), np.zeros(C, np.float64)
    for m in range(len(dy)):
        line, rline, hat, rhat = dy[m], rdy[m], xh[m], rxh[m]
        for c in range(C):
            a[c] += line[c]
            ra[c] += rline[c]
            b[c] += line[c] * hat[c]
            rb[c] += rline[c] * hat[c] + line[c] * rhat[c]
    return a.astype(dy.dtype), ra.astype(dy.dtype), b.astype(dy.dtype), rb.astype(dy.dtype)


@njit(error_model="numpy")
def r_backward_task(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    M, C = dy.shape
    s, rs, gamma, rgamma = s.copy(), rs.copy(), gamma.copy(), rgamma.copy()
    mean, rmean, slope, rslope = r_backward_sums(dy, rdy, xh, rxh)
    rdbeta[:], rdgamma[:] = rmean, rslope
    for c in range(C):                                               # of dy so far; now of dxh = gamma dy, and tangents
        rmean[c] = (rgamma[c] * mean[c] + gamma[c] * rmean[c]) / M
        rslope[c] = (rgamma[c] * slope[c] + gamma[c] * rslope[c]) / M
        mean[c] *= gamma[c] / M
        slope[c] *= gamma[c] / M
    for m in range(M):
        line, rline, hat, rhat, out = dy[m], rdy[m], xh[m], rxh[m], rdx[m]
        for c in range(C):
            inner = gamma[c] * line[c] - mean[c] - hat[c] * slope[c]
            rinner = (rgamma[c] * line[c] + gamma[c] * rline[c] - rmean[c]
                      - rhat[c] * slope[c] - hat[c] * rslope[c])
            out[c] = rs[c] * inner + s[c] * rinner


@compiled("pixels! rows! rows! pixels pixels pixels rows pixels rows rows rows")
def batch_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta: the product rule on `batch_norm_backward`."""
    for t in prange(len(dy)):
        r_backward_task(rdx[t], rdgamma[t], rdbeta[t], dy[t], rdy[t], xh[t], s[t], rxh[t], rs[t],
                        gamma[t % len(gamma)], rgamma[t % len(rgamma)])
