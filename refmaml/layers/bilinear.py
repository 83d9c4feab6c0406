"""Conv2d and Linear: a bilinear product y = x * w plus a bias.

Their calculus is the same and is written once. The product has two transposes,
<dy, x * w> = <product_dx(dy, w), x> = <product_dw(x, dy), w>:

    forward      y   = x * w + b

    backward     dx  = product_dx(dy, w)
                 dw  = product_dw(x, dy)
                 db  = sum dy

    r_forward    ry  = rx * w + x * rw + rb

    r_backward   rdx = product_dx(rdy, w) + product_dx(dy, rw)
                 rdw = product_dw(rx, dy) + product_dw(x, rdy)
                 rdb = sum rdy
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import numpy as np

from refmaml.arguments import check_bool, check_integer, set_fields
from refmaml.errors import expect
from refmaml.layers.extents import expect_images, explicit_padding, pair, rows, window_extents
from refmaml.layers.initialise import xavier_uniform
from refmaml.layers.layer import Layer


class Bilinear(Layer):
    """The four passes of a layer y = x * w + b.

    A subclass has `product`, `product_dx` and `product_dw`, and their tangents
    `r_product`, `r_product_dx` and `r_product_dw`. Each tangent is a sum of two
    products, and has a kernel of its own, which is faster than two products and a sum.
    """

    bias: bool
    weight_init: Callable
    product: Callable
    product_dx: Callable
    product_dw: Callable
    r_product: Callable
    r_product_dx: Callable
    r_product_dw: Callable

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = self.shapes()["weight"]
        outputs, inputs, taps = shape[0], shape[1], prod(shape[2:])
        weight = np.asarray(self.weight_init(rng, shape, inputs * taps, outputs * taps))
        ok = weight.shape == shape
        wanted = f"a function that returns an array of shape {shape}"
        expect(ok, "weight_init", wanted, lambda: f"shape {weight.shape}")
        return {"weight": weight, "bias": np.zeros(outputs)} if self.bias else {"weight": weight}

    def check_fields(self, *sizes: str) -> None:
        """Raise ArgumentError unless the fields named in `sizes` are integers >= 1.

        It checks `bias` and `weight_init` as well.
        """
        set_fields(self, **{name: check_integer(name, getattr(self, name)) for name in sizes})
        set_fields(self, bias=check_bool("bias", self.bias))
        ok = callable(self.weight_init)
        wanted = "a function (rng, shape, fan_in, fan_out) -> array"
        expect(ok, "weight_init", wanted, lambda: repr(self.weight_init))

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
        if not need_dx:
            return None
        return self.r_product_dx(k, dy, rdy, w["weight"], rw["weight"], x.shape)


@dataclass(frozen=True)
class Linear(Bilinear):
    """y[t,n,o] = sum_i w[t,o,i] x[t,n,i] + b[t,o].

    Parameters: weight (O, I) with O = out_features, I = in_features; bias (O,).
    weight_init  a function of layers/initialise.py or another one of its kind
    Raises ArgumentError unless sizes are integers >= 1.
    """

    in_features: int
    out_features: int
    bias: bool = True
    weight_init: Callable = xavier_uniform

    def __post_init__(self) -> None:
        self.check_fields("in_features", "out_features")

    def shapes(self) -> dict[str, tuple]:
        shapes: dict[str, tuple] = {"weight": (self.out_features, self.in_features)}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes

    def output_shape(self, shape: tuple) -> tuple:
        ok = tuple(shape) == (self.in_features,)
        wanted = f"vectors of shape ({self.in_features},)"
        expect(ok, "input of Linear", wanted, f"shape {tuple(shape)}")
        return (self.out_features,)

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
    """Lists and tuples, nested or not, as tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=256)  # every pass needs it, and it is always the same
def conv_geometry(kernel_size, stride, padding, dilation, extents):
    """(kernel, stride, padding, output extents), all explicit."""
    kernel, stride = pair(kernel_size, "kernel_size"), pair(stride, "stride")
    spread = zip(kernel, pair(dilation, "dilation"), strict=True)
    window = tuple(d * (k - 1) + 1 for k, d in spread)
    padding = explicit_padding(padding, window, stride, extents)
    return kernel, stride, padding, window_extents(extents, window, stride, padding, "Conv2d")


@dataclass(frozen=True)
class Conv2d(Bilinear):
    """y[t,n,o,i,j] = sum_{c,p,q} w[t,o,c,p,q] xpad[t,n,c,h,v] + b[t,o].

    (h, v) = (sH i + dH p, sW j + dW q), with the stride s and the dilation d.
    Parameters, with O = out_channels, C = in_channels and G = groups: weight
    (O, C/G, kH, kW); bias (O,).
    kernel_size, stride  an integer, or a pair for rows and columns
    padding      1, (1, 2), ((top, bottom), (left, right)), or "same" as in TensorFlow
                 (ceil(H / s) outputs)
    dilation     the distance (dH, dW) of a filter's taps: an integer, or a pair
    groups       G, of neighbouring channels: output o sees the C/G inputs of its own
                 group alone, and c counts these
    weight_init  a function of layers/initialise.py or another one of its kind
    Raises ArgumentError unless sizes are integers >= 1, paddings integers >= 0, and G
    divides C and O.
    """

    in_channels: int
    out_channels: int
    kernel_size: int | tuple
    stride: int | tuple = 1
    padding: int | tuple | str = 0
    dilation: int | tuple = field(default=1, kw_only=True)
    groups: int = field(default=1, kw_only=True)
    bias: bool = True
    weight_init: Callable = xavier_uniform

    def __post_init__(self) -> None:
        self.check_fields("in_channels", "out_channels", "groups")
        kernel, stride = pair(self.kernel_size, "kernel_size"), pair(self.stride, "stride")
        explicit_padding(self.padding, kernel, stride, (1, 1))
        pair(self.dilation, "dilation")
        channels = self.in_channels, self.out_channels
        divides = not any(C % self.groups for C in channels)
        expect(divides, "groups", f"a divisor of {channels} channels", f"{self.groups}")

    def geometry(self, extents):
        """(kernel, stride, padding, output extents) for inputs of extents (H, W)."""
        given = self.kernel_size, self.stride, self.padding, self.dilation, extents
        return conv_geometry(*map(as_tuples, given))

    def windows(self, extents):
        """What kernels take of it: (stride, padding), and a dilation other than 1."""
        dilation = pair(self.dilation, "dilation")
        return *self.geometry(extents)[1:3], *([] if dilation == (1, 1) else [dilation])

    def shapes(self) -> dict[str, tuple]:
        kernel = pair(self.kernel_size, "kernel_size")
        inputs = self.in_channels // self.groups
        shapes: dict[str, tuple] = {"weight": (self.out_channels, inputs, *kernel)}
        return {**shapes, "bias": (self.out_channels,)} if self.bias else shapes

    def output_shape(self, shape: tuple) -> tuple:
        expect_images(shape, self.in_channels, "Conv2d")
        return (self.out_channels, *self.geometry(shape[1:])[3])

    def product(self, k, x, w):
        out = self.geometry(x.shape[3:])[3]
        y = k.empty((*x.shape[:2], self.out_channels, *out), np.result_type(x.dtype, w.dtype))
        k.conv2d_forward(y, x, w, *self.windows(x.shape[3:]))
        return y

    def product_dx(self, k, dy, w, x_shape):
        dx = k.empty(x_shape, np.result_type(dy.dtype, w.dtype))
        k.conv2d_backward_x(dx, dy, w, *self.windows(x_shape[3:]))
        return dx

    def product_dw(self, k, dw, x, dy):
        k.conv2d_backward_w(dw, x, dy, *self.windows(x.shape[3:]))

    def r_product(self, k, x, rx, w, rw):
        out = self.geometry(x.shape[3:])[3]
        ry = k.empty((*x.shape[:2], self.out_channels, *out), np.result_type(rx.dtype, w.dtype))
        k.conv2d_r_forward(ry, x, rx, w, rw, *self.windows(x.shape[3:]))
        return ry

    def r_product_dx(self, k, dy, rdy, w, rw, x_shape):
        rdx = k.empty(x_shape, np.result_type(rdy.dtype, w.dtype))
        k.conv2d_r_backward_x(rdx, dy, rdy, w, rw, *self.windows(x_shape[3:]))
        return rdx

    def r_product_dw(self, k, rdw, x, rx, dy, rdy):
        k.conv2d_r_backward_w(rdw, x, rx, dy, rdy, *self.windows(x.shape[3:]))
