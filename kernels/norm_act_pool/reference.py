"""Batch-norm, a piecewise linear activation and max-pooling as one operation.

Here the reference kernels of the three run one after the other.

    x      (T, N, C, H, W)    xh = (x - <x>) s      u = gamma xh + beta
                              a = u where u > 0, slope u elsewhere (slope >= 0)
    y      (T, N, C, Ho, Wo)  the maximum of a over adjacent windows (kH, kW);
                              Ho = H // kH, and rows and columns that fill no whole
                              window are left out
    place  like y             the place p kW + q of the maximum in its window; unused
                              where the window is (1, 1) and nothing is pooled
    mean, s         (T, C)    <x> and 1 / sqrt(var + eps)
    rmean, incline  (T, C)    <rx> and <xh rx>, so that rs = -s^2 incline
    gamma, beta     (T, C) per task or (1, C) shared

The caller keeps x and y. Besides these a pass keeps four numbers for each channel: xh
and rxh are computed again from x and rx, and f'(u) at a maximum follows from the sign
of y, as y > 0 where u > 0.
"""

import numpy as np

from refmaml.kernels.activation.functions import leaky
from refmaml.kernels.activation.reference import (
    activation_backward,
    activation_forward,
    activation_r_backward,
    activation_r_forward,
)
from refmaml.kernels.batch_norm.reference import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_r_backward,
    batch_norm_r_forward,
    per_channel,
)
from refmaml.kernels.pooling.reference import (
    max_pool2d_backward,
    max_pool2d_forward,
    max_pool2d_gather,
)

__all__ = [
    "norm_act_pool_forward",
    "norm_act_pool_backward",
    "norm_act_pool_r_forward",
    "norm_act_pool_r_backward",
]


def pixel_rows(a):
    """(T, N, C, H, W) -> (T, N, C, H W), the shape that batch-norm takes."""
    return a.reshape(*a.shape[:3], -1)


def spread(y, place, x, window):
    """y at the pixels of x that are maxima, 0 elsewhere."""
    if window == (1, 1):
        return y
    a = np.empty_like(x, dtype=y.dtype)
    max_pool2d_backward(a, place, y, window, window)
    return a


def normalised(x, mean, s, rx=None, rmean=None, incline=None):
    """xh of x; with the tangents, (xh, rxh)."""
    xh = per_channel(s) * (pixel_rows(x) - per_channel(mean))
    if rx is None:
        return xh
    return xh, per_channel(s) * (pixel_rows(rx) - per_channel(rmean) - xh * per_channel(incline))


def norm_act_pool_forward(y, place, mean, s, x, gamma, beta, eps, slope, window):
    """Fills y, place, mean and s."""
    u, xh = np.empty_like(pixel_rows(x)), np.empty_like(pixel_rows(x))
    a = np.empty_like(x)
    mean[...] = x.mean(axis=(1, 3, 4))
    mean += (pixel_rows(x) - per_channel(mean)).mean(axis=(1, 3))  # the rounding error of <x>
    batch_norm_forward(u, xh, s, pixel_rows(x), gamma, beta, eps)
    activation_forward(a, u.reshape(x.shape), leaky(slope))
    if window == (1, 1):
        y[...] = a
    else:
        max_pool2d_forward(y, place, a, window, window)


def norm_act_pool_backward(dx, dgamma, dbeta, dy, y, place, x, mean, s, gamma, slope, window):
    """Fills dx, dgamma = sum du xh, dbeta = sum du."""
    du, out = np.empty_like(dx), np.empty_like(pixel_rows(dx))
    activation_backward(du, spread(dy, place, x, window), spread(y, place, x, window), leaky(slope))
    batch_norm_backward(out, dgamma, dbeta, pixel_rows(du), normalised(x, mean, s), s, gamma)
    dx[...] = out.reshape(dx.shape)


def norm_act_pool_r_forward(
    ry, rmean, incline, rx, y, place, x, mean, s, gamma, rgamma, rbeta, slope, window
):
    """Fills ry, rmean and incline along (rx, rgamma, rbeta)."""
    xh = normalised(x, mean, s)
    ru, rxh, rs, ra = np.empty_like(xh), np.empty_like(xh), np.empty_like(s), np.empty_like(rx)
    rmean[...], incline[...] = rx.mean(axis=(1, 3, 4)), (xh * pixel_rows(rx)).mean(axis=(1, 3))
    batch_norm_r_forward(ru, rxh, rs, pixel_rows(rx), xh, s, gamma, rgamma, rbeta)
    activation_r_forward(ra, ru.reshape(rx.shape), spread(y, place, x, window), leaky(slope))
    if window == (1, 1):
        ry[...] = ra
    else:
        max_pool2d_gather(ry, place, ra, window, window)


# fmt: off
def norm_act_pool_r_backward(
    rdx, rdgamma, rdbeta, dy, rdy, y, place, x, mean, s, rx, rmean, incline,
    gamma, rgamma, slope, window,
):
    """Fills rdx, rdgamma, rdbeta."""
    # fmt: on
    xh, rxh = normalised(x, mean, s, rx, rmean, incline)
    rs, out = -s * s * incline, np.empty_like(pixel_rows(rdx))
    a, da, rda = (spread(v, place, x, window) for v in (y, dy, rdy))
    du, rdu = np.empty_like(rdx), np.empty_like(rdx)
    activation_backward(du, da, a, leaky(slope))
    activation_r_backward(rdu, da, rda, a, None, leaky(slope))
    adjoints = pixel_rows(du), pixel_rows(rdu)
    batch_norm_r_backward(out, rdgamma, rdbeta, *adjoints, xh, s, rxh, rs, gamma, rgamma)
    rdx[...] = out.reshape(rdx.shape)
