"""Normalisation over groups of numbers of one example: group, layer, instance norm.

    x  (T, N, C, L)     each example has G groups of C / G channels that follow each
                        other; means <.> run over the M = C / G L numbers of a group
    s  (T, N, G)        1 / sqrt(var + eps), var the biased variance
    gamma, beta         (T, C, A) per task or (1, C, A) shared: A = 1, one number for
                        each channel, or A = L, one for each number of an example

    forward      xh  = s (x - <x>)
                 y   = gamma xh + beta
    backward     dxh = gamma dy
                 dx  = s (dxh - <dxh> - xh <dxh xh>)
    r_forward    rc  = rx - <rx>
                 rxh = s (rc - xh <xh rc>),  rs = -s^2 <xh rc>
                 ry  = rgamma xh + gamma rxh + rbeta
    r_backward   the product rule on `backward`, term by term

Derivation: refmaml/layers/group_norm.md.
"""

import numpy as np

__all__ = [
    "group_norm_forward",
    "group_norm_backward",
    "group_norm_r_forward",
    "group_norm_r_backward",
]


def mean(a, G):
    """<a> over each of G groups, as (T, N, C, 1): the channels of a group share it."""
    T, N, C, L = a.shape
    means = a.reshape(T, N, G, C // G * L).mean(axis=3)
    return means.repeat(C // G, axis=2)[..., None]


def twice_centred(a, G):
    """a - <a>. <a> is rounded relative to its own size, which may be many times the
    standard deviation; the mean of the difference corrects it.
    """
    centred = a - mean(a, G)
    return centred - mean(centred, G)


def per_channel(s, C):
    """(T, N, G) -> (T, N, C, 1): each channel has the number of its group."""
    return s.repeat(C // s.shape[2], axis=2)[..., None]


def per_group(a, G):
    """The inverse of `per_channel`: (T, N, C, 1) -> (T, N, G)."""
    return a[:, :, :: a.shape[2] // G, 0]


def per_parameter(a, gamma):
    """The sum of a (T, N, C, L) over the numbers that share an entry of gamma."""
    total = a.sum(axis=1)
    return total if gamma.shape[2] == a.shape[3] else total.sum(axis=2, keepdims=True)


def group_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps).

    The variance is that of centred values.
    """
    G, C = s.shape[2], x.shape[2]
    centred = twice_centred(x, G)
    s[...] = 1 / np.sqrt(per_group(mean(centred * centred, G), G) + eps)
    xh[...] = per_channel(s, C) * centred
    y[...] = gamma[:, None] * xh + beta[:, None]


def group_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    G, C = s.shape[2], dy.shape[2]
    dgamma[...] = per_parameter(dy * xh, dgamma)
    dbeta[...] = per_parameter(dy, dbeta)
    dxh = gamma[:, None] * dy
    dx[...] = per_channel(s, C) * (dxh - mean(dxh, G) - xh * mean(dxh * xh, G))


def group_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta).

    rx is centred twice, as x is, and before it is multiplied by xh: <rx> may be many
    times the deviations, and would multiply the rounding of <xh>.
    """
    G, C = s.shape[2], rx.shape[2]
    centred = twice_centred(rx, G)
    slope = mean(xh * centred, G)  # <xh rx>
    rs[...] = -s * s * per_group(slope, G)
    rxh[...] = per_channel(s, C) * (centred - xh * slope)
    ry[...] = rgamma[:, None] * xh + gamma[:, None] * rxh + rbeta[:, None]


def group_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta: the product rule on `group_norm_backward`."""
    G, C = s.shape[2], dy.shape[2]
    rdgamma[...] = per_parameter(rdy * xh + dy * rxh, rdgamma)
    rdbeta[...] = per_parameter(rdy, rdbeta)
    dxh = gamma[:, None] * dy
    rdxh = rgamma[:, None] * dy + gamma[:, None] * rdy
    slope, rslope = mean(dxh * xh, G), mean(rdxh * xh + dxh * rxh, G)  # <dxh xh>, its tangent
    inner = dxh - mean(dxh, G) - xh * slope
    rinner = rdxh - mean(rdxh, G) - rxh * slope - xh * rslope
    rdx[...] = per_channel(rs, C) * inner + per_channel(s, C) * rinner
