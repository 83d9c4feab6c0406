"""Pooling: linear in its input (the maximum once the winners are known), so each R-pass is the pass itself on the tangent."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from refmaml.layers.extents import expect_images, pair, window_extents


class Winners(NamedTuple):
    """What max-pooling remembers: the winning place in each window, and the shape of its input."""

    place: np.ndarray
    x_shape: tuple


class Pooling:
    """What every pooling layer shares: no parameters, and the transposed map as both backward passes."""

    def shapes(self):
        return {}

    def init(self, rng):
        return {}

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        return self.transpose(k, saved, dy)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        return self.transpose(k, saved, rdy)


class Averaging(Pooling):
    """Pooling by `average`, linear as it stands."""

    def forward(self, k, w, x):
        return self.average(k, x), x.shape

    def r_forward(self, k, w, rw, saved, rx):
        return self.average(k, rx), None


class Windowed(Pooling):
    """Pooling over windows of kernel_size, a stride apart (None: side by side); incomplete windows are left out."""

    def __post_init__(self):
        self.geometry()

    def geometry(self):
        window = pair(self.kernel_size, "kernel_size")
        return window, (window if self.stride is None else pair(self.stride, "stride"))

    def output_shape(self, shape):
        expect_images(shape, None, type(self).__name__)
        window, stride = self.geometry()
        return (
            shape[0],
            *window_extents(shape[1:], window, stride, ((0, 0), (0, 0)), type(self).__name__),
        )


@dataclass(frozen=True)
class MaxPool2d(Windowed):
    """y = the largest value of each window; of equals the first in row order gets the gradient, as in PyTorch."""

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
    """y = the mean of each window."""

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
    """y[t,n,c] = mean over all positions of x[t,n,c]: one window as large as the image, its two axes dropped."""

    def output_shape(self, shape):
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
