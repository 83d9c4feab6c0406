"""Batch normalisation with the statistics of the batch, per task and channel.

    x  (T, N, C, L)     means <.> run over the M = N L values of one (task, channel)
    s  (T, C)           1 / sqrt(var + eps), var the biased variance
    gamma, beta (T, C) per task or (1, C) shared

    forward      xh  = s (x - <x>)
                 y   = gamma xh + beta
    backward     dxh = gamma dy
                 dx  = s (dxh - <dxh> - xh <dxh xh>)
    r_forward    rxh = s (rx - <rx> - xh <xh rx>),  rs = -s^2 <xh rx>
                 ry  = rgamma xh + gamma rxh + rbeta
    r_backward   the product rule on `backward`, term by term

Derivation: refmaml/layers/batch_norm.md.
"""

import numpy as np

__all__ = [
    "batch_norm_forward",
    "batch_norm_backward",
    "batch_norm_r_forward",
    "batch_norm_r_backward",
]


def mean(a):
    """<a> over examples and positions, as (T, 1, C, 1) so that it broadcasts back."""
    return a.mean(axis=(1, 3), keepdims=True)


def per_channel(a):
    """(T, C) -> (T, 1, C, 1)."""
    return a[:, None, :, None]


def batch_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps).

    The variance is that of centred values. They are centred twice: <x> is rounded
    relative to its own size, which may be many times the standard deviation.
    """
    centred = x - mean(x)
    centred = centred - mean(centred)
    s[...] = 1 / np.sqrt(mean(centred * centred)[:, 0, :, 0] + eps)
    xh[...] = per_channel(s) * centred
    y[...] = per_channel(gamma) * xh + per_channel(beta)


def batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    dgamma[...] = (dy * xh).sum(axis=(1, 3))
    dbeta[...] = dy.sum(axis=(1, 3))
    dxh = per_channel(gamma) * dy
    dx[...] = per_channel(s) * (dxh - mean(dxh) - xh * mean(dxh * xh))


def batch_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    slope = mean(xh * rx)  # <xh rx>
    rs[...] = -s * s * slope[:, 0, :, 0]
    rxh[...] = per_channel(s) * (rx - mean(rx) - xh * slope)
    ry[...] = per_channel(rgamma) * xh + per_channel(gamma) * rxh + per_channel(rbeta)


def batch_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta: the product rule on `batch_norm_backward`."""
    rdgamma[...] = (rdy * xh + dy * rxh).sum(axis=(1, 3))
    rdbeta[...] = rdy.sum(axis=(1, 3))
    dxh = per_channel(gamma) * dy
    rdxh = per_channel(rgamma) * dy + per_channel(gamma) * rdy
    slope, rslope = mean(dxh * xh), mean(rdxh * xh + dxh * rxh)  # <dxh xh> and its tangent
    inner = dxh - mean(dxh) - xh * slope
    rinner = rdxh - mean(rdxh) - rxh * slope - xh * rslope
    rdx[...] = per_channel(rs) * inner + per_channel(s) * rinner
