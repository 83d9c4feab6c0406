"""Pooling over windows of x (T, N, C, H, W) into y (T, N, C, Ho, Wo).

y is the maximum or the mean of each window.

    window (kH, kW), stride (sH, sW); rows and columns that fill no whole window are
    left out, as in PyTorch. winner (T, N, C, Ho, Wo) of integers: the place p kW + q of
    the maximum in its window

Both are linear in x: the mean always, the maximum once the winners are stored. So the
tangent of the forward pass is the same gather, and the tangent of the backward pass the
same scatter.
"""

from math import prod

import numpy as np

__all__ = [
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_backward",
    "avg_pool2d_forward",
    "avg_pool2d_backward",
]


def expect_wide_enough(winner, window):
    """Raise ValueError if the integers of `winner` are too narrow for a window."""
    largest = np.iinfo(winner.dtype).max
    if prod(window) - 1 > largest:
        raise ValueError(
            f"winner: expected integers up to {prod(window) - 1} for windows of "
            f"{window[0]} x {window[1]}, got {winner.dtype}"
        )


def views(x, window, stride, out):
    """For each place (p, q) of a window, in row order: x there, (T, N, C, Ho, Wo)."""
    (kH, kW), (sH, sW), (Ho, Wo) = window, stride, out
    return [
        x[..., p : p + sH * Ho : sH, q : q + sW * Wo : sW] for p in range(kH) for q in range(kW)
    ]


def max_pool2d_forward(y, winner, x, window, stride):
    """Fills y and `winner`: the first of equal maxima; NaN is larger than every number.

    Raises ValueError if the integer type of `winner` is too narrow.
    """
    expect_wide_enough(winner, window)
    winner[...] = 0
    for place, value in enumerate(views(x, window, stride, y.shape[-2:])):
        if place == 0:
            y[...] = value
            continue
        better = (value.real > y.real) | (np.isnan(value.real) & ~np.isnan(y.real))
        winner[better] = place
        y[better] = value[better]


def max_pool2d_gather(ry, winner, rx, window, stride):
    """ry = rx at the places of the winners."""
    for place, value in enumerate(views(rx, window, stride, ry.shape[-2:])):
        won = winner == place
        ry[won] = value[won]


def max_pool2d_backward(dx, winner, dy, window, stride):
    """dx = dy at the places of the winners, summed where windows overlap.

    It is the transpose of the gather.
    """
    dx[...] = 0
    for place, value in enumerate(views(dx, window, stride, dy.shape[-2:])):
        value += np.where(winner == place, dy, 0)


def avg_pool2d_forward(y, x, window, stride):
    """y = the mean of each window."""
    y[...] = sum(views(x, window, stride, y.shape[-2:])) / (window[0] * window[1])


def avg_pool2d_backward(dx, dy, window, stride):
    """dx = each dy divided evenly among the pixels of its window."""
    dx[...] = 0
    share = dy / (window[0] * window[1])
    for value in views(dx, window, stride, dy.shape[-2:]):
        value += share
