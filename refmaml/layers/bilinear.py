"""Conv2d and Linear. Both are a bilinear product y = x * w plus a bias, so their calculus is the same and is written once.

With the two transposes of the product, <dy, x * w> = <product_dx(dy, w), x> = <product_dw(x, dy), w>:

    forward      y   = x * w + b
    backward     dx  = product_dx(dy, w)                           dw  = product_dw(x, dy)                        db  = sum dy
    r_forward    ry  = rx * w + x * rw + rb
    r_backward   rdx = product_dx(rdy, w) + product_dx(dy, rw)     rdw = product_dw(rx, dy) + product_dw(x, rdy)   rdb = sum rdy
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from refmaml.errors import expect
from refmaml.layers.extents import expect_images, explicit_padding, pair, rows, window_extents
from refmaml.layers.initialise import xavier_uniform


class Bilinear:
    """The four passes, for a layer that knows its `product`, `product_dx` and `product_dw`, and for each its tangent, a sum of two
    (`r_product`, `r_product_dx`, `r_product_dw`: kernels of their own, as one pass over both is quicker than two and a sum)."""

    def forward(self, k, w, x):
        y = self.product(k, x, w["weight"])
        if self.bias:
            k.bias_forward(rows(y), w["bias"])
        return y, x

    def backward(self, k, dw, w, x, dy, need_dx=True):
        self.product_dw(k, dw["weight"], x, dy)
        if self.bias:
            k.bias_backward(dw["bias"], rows(dy))
        return self.product_dx(k, dy, w["weight"], x.shape) if need_dx else None

    def r_forward(self, k, w, rw, x, rx):
        if rx is None:
            ry = self.product(k, x, rw["weight"])
        else:
            ry = self.r_product(k, x, rx, w["weight"], rw["weight"])
        if self.bias:
            k.bias_forward(rows(ry), rw["bias"])
        return ry, rx

    def r_backward(self, k, rdw, w, rw, x, rx, dy, rdy, need_dx=True):
        if rx is None:
            self.product_dw(k, rdw["weight"], x, rdy)
        else:
            self.r_product_dw(k, rdw["weight"], x, rx, dy, rdy)
        if self.bias:
            k.bias_backward(rdw["bias"], rows(rdy))
        return (
            self.r_product_dx(k, dy, rdy, w["weight"], rw["weight"], x.shape) if need_dx else None
        )


@dataclass(frozen=True)
class Linear(Bilinear):
    """y[t,n,o] = sum_i w[t,o,i] x[t,n,i] + b[t,o]. Parameters: weight (O, I), bias (O,)."""

    in_features: int
    out_features: int
    bias: bool = True
    weight_init: Callable = xavier_uniform

    def shapes(self):
        shapes = {"weight": (self.out_features, self.in_features)}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes

    def output_shape(self, shape):
        expect(
            tuple(shape) == (self.in_features,),
            "input of Linear",
            f"vectors of shape ({self.in_features},)",
            f"shape {tuple(shape)}",
        )
        return (self.out_features,)

    def init(self, rng):
        weight = self.weight_init(rng, self.shapes()["weight"], self.in_features, self.out_features)
        return (
            {"weight": weight, "bias": np.zeros(self.out_features)}
            if self.bias
            else {"weight": weight}
        )

    def product(self, k, x, w):
        y = k.empty((*x.shape[:2], w.shape[1]), np.result_type(x.dtype, w.dtype))
        k.linear_forward(y, x, w)
        return y

    def product_dx(self, k, dy, w, x_shape):
        dx = k.empty(x_shape, np.result_type(dy.dtype, w.dtype))
        k.linear_backward_x(dx, dy, w)
        return dx

    def product_dw(self, k, dw, x, dy):
        k.linear_backward_w(dw, x, dy)

    def r_product(self, k, x, rx, w, rw):
        ry = k.empty((*x.shape[:2], w.shape[1]), np.result_type(rx.dtype, w.dtype))
        k.linear_r_forward(ry, x, rx, w, rw)
        return ry

    def r_product_dx(self, k, dy, rdy, w, rw, x_shape):
        rdx = k.empty(x_shape, np.result_type(rdy.dtype, w.dtype))
        k.linear_r_backward_x(rdx, dy, rdy, w, rw)
        return rdx

    def r_product_dw(self, k, rdw, x, rx, dy, rdy):
        k.linear_r_backward_w(rdw, x, rx, dy, rdy)


def as_tuples(value):
    return tuple(map(as_tuples, value)) if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=256)  # asked for in every pass, and always the same
def conv_geometry(kernel_size, stride, padding, extents):
    kernel, stride = pair(kernel_size, "kernel_size"), pair(stride, "stride")
    padding = explicit_padding(padding, kernel, stride, extents)
    return kernel, stride, padding, window_extents(extents, kernel, stride, padding, "Conv2d")


@dataclass(frozen=True)
class Conv2d(Bilinear):
    """y[t,n,o,i,j] = sum_{c,p,q} w[t,o,c,p,q] xpad[t,n,c, sH i + p, sW j + q] + b[t,o].

    Parameters: weight (O, C, kH, kW), bias (O,).
    padding: 1, (1, 2), ((top, bottom), (left, right)), or "same" as TensorFlow means it (ceil(H / s) outputs).
    """

    in_channels: int
    out_channels: int
    kernel_size: int | tuple
    stride: int | tuple = 1
    padding: int | tuple | str = 0
    bias: bool = True
    weight_init: Callable = xavier_uniform

    def __post_init__(self):
        pair(self.kernel_size, "kernel_size")
        pair(self.stride, "stride")
        self.padding == "same" or explicit_padding(self.padding, (1, 1), (1, 1), (1, 1))

    def geometry(self, extents):
        """(kernel, stride, padding, output extents) for an input of height and width `extents`."""
        return conv_geometry(
            *map(as_tuples, (self.kernel_size, self.stride, self.padding, extents))
        )

    def shapes(self):
        shapes = {
            "weight": (self.out_channels, self.in_channels, *pair(self.kernel_size, "kernel_size"))
        }
        return {**shapes, "bias": (self.out_channels,)} if self.bias else shapes

    def output_shape(self, shape):
        expect_images(shape, self.in_channels, "Conv2d")
        return (self.out_channels, *self.geometry(shape[1:])[3])

    def init(self, rng):
        shape = self.shapes()["weight"]
        taps = prod(shape[2:])
        weight = self.weight_init(rng, shape, self.in_channels * taps, self.out_channels * taps)
        return (
            {"weight": weight, "bias": np.zeros(self.out_channels)}
            if self.bias
            else {"weight": weight}
        )

    def product(self, k, x, w):
        _, stride, padding, out = self.geometry(x.shape[3:])
        y = k.empty((*x.shape[:2], self.out_channels, *out), np.result_type(x.dtype, w.dtype))
        k.conv2d_forward(y, x, w, stride, padding)
        return y

    def product_dx(self, k, dy, w, x_shape):
        _, stride, padding, _ = self.geometry(x_shape[3:])
        dx = k.empty(x_shape, np.result_type(dy.dtype, w.dtype))
        k.conv2d_backward_x(dx, dy, w, stride, padding)
        return dx

    def product_dw(self, k, dw, x, dy):
        _, stride, padding, _ = self.geometry(x.shape[3:])
        k.conv2d_backward_w(dw, x, dy, stride, padding)

    def r_product(self, k, x, rx, w, rw):
        _, stride, padding, out = self.geometry(x.shape[3:])
        ry = k.empty((*x.shape[:2], self.out_channels, *out), np.result_type(rx.dtype, w.dtype))
        k.conv2d_r_forward(ry, x, rx, w, rw, stride, padding)
        return ry

    def r_product_dx(self, k, dy, rdy, w, rw, x_shape):
        _, stride, padding, _ = self.geometry(x_shape[3:])
        rdx = k.empty(x_shape, np.result_type(rdy.dtype, w.dtype))
        k.conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding)
        return rdx

    def r_product_dw(self, k, rdw, x, rx, dy, rdy):
        _, stride, padding, _ = self.geometry(x.shape[3:])
        k.conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding)
