"""Pooling. It is linear in its input, so each R-pass is the pass itself on the tangent.

A maximum is linear where the place of the largest value does not change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from refmaml.layers.extents import Pair, expect_images, pair, window_extents
from refmaml.layers.layer import Layer

NO_PADDING = ((0, 0), (0, 0))


class Winners(NamedTuple):
    """What max-pooling saves.

    place    the place of the largest value in each window, counted in row order
    x_shape  the shape of the input
    """

    place: np.ndarray
    x_shape: tuple


class Pooling(Layer):
    """The base of all pooling layers: both backward passes are the transposed map."""

    transpose: Callable

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        return self.transpose(k, saved, dy)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        return self.transpose(k, saved, rdy)


class Averaging(Pooling):
    """Pooling by `average`, which a subclass has; it is linear."""

    average: Callable

    def forward(self, k, w, x):
        return self.average(k, x), x.shape

    def r_forward(self, k, w, rw, saved, rx):
        return self.average(k, rx), None


class Windowed(Pooling):
    """Pooling over windows.

    kernel_size  the window: an integer, or a pair for rows and columns
    stride       the distance between windows; None: kernel_size
    Incomplete windows at the bottom and on the right are left out.
    Raises ArgumentError unless sizes are integers >= 1.
    """

    kernel_size: int | tuple
    stride: int | tuple | None

    def __post_init__(self) -> None:
        self.geometry()

    def geometry(self) -> tuple[Pair, Pair]:
        """(window, stride), a pair each."""
        window = pair(self.kernel_size, "kernel_size")
        return window, (window if self.stride is None else pair(self.stride, "stride"))

    def output_shape(self, shape: tuple) -> tuple:
        name = type(self).__name__
        expect_images(shape, None, name)
        return (shape[0], *window_extents(shape[1:], *self.geometry(), NO_PADDING, name))


@dataclass(frozen=True)
class MaxPool2d(Windowed):
    """y = the largest value of each window.

    Of equal values the first in row order gets the gradient, as in PyTorch.
    kernel_size, stride: see Windowed.
    """

    kernel_size: int | tuple
    stride: int | tuple | None = None

    def forward(self, k, w, x):
        y = k.empty((*x.shape[:2], *self.output_shape(x.shape[2:])), x.dtype)
        place = k.empty(y.shape, np.int16 if prod(self.geometry()[0]) <= 32767 else np.int32)
        k.max_pool2d_forward(y, place, x, *self.geometry())
        return y, Winners(place, x.shape)

    def r_forward(self, k, w, rw, saved, rx):
        ry = k.empty(saved.place.shape, rx.dtype)
        k.max_pool2d_gather(ry, saved.place, rx, *self.geometry())
        return ry, None

    def transpose(self, k, saved, dy):
        dx = k.empty(saved.x_shape, dy.dtype)
        k.max_pool2d_backward(dx, saved.place, dy, *self.geometry())
        return dx


@dataclass(frozen=True)
class AvgPool2d(Averaging, Windowed):
    """y = the mean of each window. kernel_size, stride: see Windowed."""

    kernel_size: int | tuple
    stride: int | tuple | None = None

    def average(self, k, x):
        y = k.empty((*x.shape[:2], *self.output_shape(x.shape[2:])), x.dtype)
        k.avg_pool2d_forward(y, x, *self.geometry())
        return y

    def transpose(self, k, x_shape, dy):
        dx = k.empty(x_shape, dy.dtype)
        k.avg_pool2d_backward(dx, dy, *self.geometry())
        return dx


@dataclass(frozen=True)
class SpatialMean(Averaging):
    """y[t,n,c] = mean of x[t,n,c] over all positions.

    It is an average over one window as large as the image, without the window's axes.
    """

    def output_shape(self, shape: tuple) -> tuple:
        expect_images(shape, None, "SpatialMean")
        return (shape[0],)

    def average(self, k, x):
        y = k.empty((*x.shape[:3], 1, 1), x.dtype)
        k.avg_pool2d_forward(y, x, x.shape[3:], x.shape[3:])
        return y.reshape(x.shape[:3])

    def transpose(self, k, x_shape, dy):
        dx = k.empty(x_shape, dy.dtype)
        k.avg_pool2d_backward(dx, dy.reshape(*dy.shape, 1, 1), x_shape[3:], x_shape[3:])
        return dx
