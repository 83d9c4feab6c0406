"""Elementwise layers.

y = f(x), dx = f'(x) dy, ry = f'(x) rx, rdx = f'(x) rdy + f''(x) rx dy.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.arguments import check_number, set_fields
from refmaml.kernels.activation import functions
from refmaml.layers.layer import Layer


class Activation(Layer):
    """The four passes of a layer y = f(x); a subclass has f as `function`."""

    function: Any

    def forward(self, k, w, x):
        y = k.empty(x.shape, x.dtype)
        k.activation_forward(y, x, self.function)
        return y, x

    def backward(self, k, dw, w, x, dy, need_dx=True):
        dx = k.empty(x.shape, np.result_type(x.dtype, dy.dtype))
        k.activation_backward(dx, dy, x, self.function)
        return dx

    def r_forward(self, k, w, rw, x, rx):
        ry = k.empty(x.shape, rx.dtype)
        k.activation_r_forward(ry, rx, x, self.function)
        return ry, rx

    def r_backward(self, k, rdw, w, rw, x, rx, dy, rdy, need_dx=True):
        rdx = k.empty(x.shape, rdy.dtype)
        k.activation_r_backward(rdx, dy, rdy, x, rx, self.function)
        return rdx


@dataclass(frozen=True)
class ReLU(Activation):
    """y = max(x, 0); the derivative at 0 is 0."""

    function = functions.leaky(0)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """y = x where x > 0, negative_slope x elsewhere.

    Raises ArgumentError unless negative_slope is a finite number.
    """

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        set_fields(self, negative_slope=check_number("negative_slope", self.negative_slope))

    @property
    def function(self):
        return functions.leaky(self.negative_slope)


@dataclass(frozen=True)
class Tanh(Activation):
    """y = tanh x, y' = 1 - y^2, y'' = -2 y (1 - y^2)."""

    function = functions.tanh


@dataclass(frozen=True)
class Softplus(Activation):
    """y = log(1 + e^x), y' = sigmoid(x), y'' = sigmoid(x) sigmoid(-x)."""

    function = functions.softplus
