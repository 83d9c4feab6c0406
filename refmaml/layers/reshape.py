"""Flatten: the same numbers as one vector; its transpose restores the shape."""

from dataclasses import dataclass
from math import prod

from refmaml.layers.layer import Layer


@dataclass(frozen=True)
class Flatten(Layer):
    """(T, N, C, H, W) -> (T, N, C H W), in row order."""

    def output_shape(self, shape: tuple) -> tuple:
        return (prod(shape),)

    def forward(self, k, w, x):
        return self.flat(x), x.shape

    def backward(self, k, dw, w, x_shape, dy, need_dx=True):
        return dy.reshape(x_shape)

    def r_forward(self, k, w, rw, x_shape, rx):
        return self.flat(rx), None

    def r_backward(self, k, rdw, w, rw, x_shape, rsaved, dy, rdy, need_dx=True):
        return rdy.reshape(x_shape)

    def flat(self, x):
        return x.reshape(*x.shape[:2], *self.output_shape(x.shape[2:]))
