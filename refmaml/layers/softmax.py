"""Softmax and LogSoftmax as layers, written with k.xp alone."""

from dataclasses import dataclass
from typing import Any

from refmaml.arguments import is_integer, set_fields
from refmaml.errors import expect
from refmaml.layers.layer import Layer


def check_dim(dim: Any) -> int:
    """The value as Python's int, if it is an integer other than 0."""
    wanted = "an integer other than 0, which is the dimension of the examples"
    expect(is_integer(dim) and dim != 0, "dim", wanted, lambda: repr(dim))
    return int(dim)


class NormalisedOverDim(Layer):
    """The base of both layers: where the sums run, and the stable exponential."""

    dim: int

    def __post_init__(self) -> None:
        set_fields(self, dim=check_dim(self.dim))

    def output_shape(self, shape: tuple) -> tuple:
        ok = -len(shape) <= self.dim <= len(shape)
        expect(ok, f"input of {type(self).__name__}", f"a dimension {self.dim}", f"shape {shape}")
        return tuple(shape)

    @property
    def axis(self) -> int:
        """The axis of x (T, N, ...): PyTorch's tensors have no axis for tasks."""
        return self.dim + 1 if self.dim > 0 else self.dim

    def total(self, a):
        """The sum over the dimension, kept for broadcasting."""
        return a.sum(axis=self.axis, keepdims=True)

    def exponentials(self, k, x):
        """(x - m, e^(x - m), the sum of the latter) with the largest real part m."""
        shifted = x - x.real.max(axis=self.axis, keepdims=True)
        e = k.xp.exp(shifted)
        return shifted, e, self.total(e)


@dataclass(frozen=True)
class Softmax(NormalisedOverDim):
    """y = p = e^x / sum e^x, the sum over one dimension; <.> is that sum below.

        dx = p (dy - <p dy>)         ry = rp = p (rx - <p rx>)
        rdx = rp (dy - <p dy>) + p (rdy - <rp dy> - <p rdy>)

    The matrix diag(p) - p p' is symmetric, so dx and ry are the same product with it.

    dim  PyTorch's: 1 is the features of vectors and the channels of images, -1 the last
         dimension of either; 0 is the examples, and refused
    Raises ArgumentError for another dim, and for inputs that lack this dimension.
    """

    dim: int = 1

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]"""
        return [(cls(), (5,)), (cls(), (3, 4, 2)), (cls(-2), (3, 4, 2))]

    def projected(self, p, a):
        """(diag(p) - p p') a."""
        return p * (a - self.total(p * a))

    def forward(self, k, w, x):
        _, e, total = self.exponentials(k, x)
        p = e / total
        return p, p

    def backward(self, k, dw, w, p, dy, need_dx=True):
        return self.projected(p, dy)

    def r_forward(self, k, w, rw, p, rx):
        rp = self.projected(p, rx)
        return rp, rp

    def r_backward(self, k, rdw, w, rw, p, rp, dy, rdy, need_dx=True):
        turned = rp * (dy - self.total(p * dy)) - p * self.total(rp * dy)
        return turned + self.projected(p, rdy)


@dataclass(frozen=True)
class LogSoftmax(NormalisedOverDim):
    """y = x - log sum e^x, the sum over one dimension; p = e^y, <.> is that sum below.

        dx = dy - p <dy>             ry = rx - <p rx>
        rdx = rdy - p <rdy> - rp <dy>, rp = p ry

    dim  as in Softmax
    Raises ArgumentError as Softmax does.
    """

    dim: int = 1

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]"""
        return [(cls(), (5,)), (cls(), (3, 4, 2)), (cls(-2), (3, 4, 2))]

    def forward(self, k, w, x):
        shifted, e, total = self.exponentials(k, x)
        return shifted - k.xp.log(total), e / total

    def backward(self, k, dw, w, p, dy, need_dx=True):
        return dy - p * self.total(dy)

    def r_forward(self, k, w, rw, p, rx):
        ry = rx - self.total(p * rx)
        return ry, p * ry

    def r_backward(self, k, rdw, w, rw, p, rp, dy, rdy, need_dx=True):
        return rdy - p * self.total(rdy) - rp * self.total(dy)
