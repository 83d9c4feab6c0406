"""Flatten: the same numbers in one row; its transpose puts them back."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Flatten:
    """(T, N, C, H, W) -> (T, N, C H W), in row order."""

    def shapes(self):
        return {}

    def init(self, rng):
        return {}

    def output_shape(self, shape):
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
