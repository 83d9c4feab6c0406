"""Batch-norm with the activation and the max-pooling behind it as one layer.

It is for kernel sets that compute all three at once. `fusion.fused_layers` puts these
layers into a net; they are not part of the public interface.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.layer import Layer


class Fused(NamedTuple):
    """What the forward pass saves.

    x, y   input and output, as images
    place  the place of the largest value in each window
    mean   <x> (T, C), and s = 1 / sqrt(var + eps) (T, C)
    of_vectors  whether the input was vectors (T, N, C)
    """

    y: np.ndarray
    place: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    s: np.ndarray
    of_vectors: bool


class Tangents(NamedTuple):
    """What the R-pass saves: rx, rmean = <rx> (T, C) and xh_rx = <xh rx> (T, C)."""

    rx: np.ndarray
    rmean: np.ndarray
    xh_rx: np.ndarray


@dataclass(frozen=True)
class NormActPool(Layer):
    """`norm`, then an activation, then a max-pooling.

    norm    the batch-norm u = norm(x); its parameters are those of this layer
    slope   of the activation: u where u > 0, slope u elsewhere; 1: no activation
    window  of the max-pooling, whose windows lie side by side; (1, 1): no pooling
    Vectors (C,) are images of one pixel.
    """

    norm: BatchNorm2d
    slope: float = 1.0
    window: tuple = (1, 1)

    def shapes(self):
        return self.norm.shapes()

    def init(self, rng):
        return self.norm.init(rng)

    def output_shape(self, shape):
        C, *extents = self.norm.output_shape(shape)
        return (C, *self.pooled(extents)) if extents else (C,)

    def pooled(self, extents):
        """Height and width of the output from those of the input."""
        return tuple(n // side for n, side in zip(extents, self.window, strict=True))

    def forward(self, k, w, x):
        gamma, beta = self.norm.affine(k, w, 1, x)
        x5 = images(x)
        y_shape = *x5.shape[:3], *self.pooled(x5.shape[3:])
        y = k.empty(y_shape, np.result_type(x.dtype, gamma.dtype, beta.dtype))
        place = k.empty(y.shape if self.window != (1, 1) else (len(x), 0, 0, 0, 0), np.int8)
        mean, s = (k.empty((len(x), self.norm.num_features), y.dtype) for _ in range(2))
        k.norm_act_pool_forward(
            y, place, mean, s, x5, gamma, beta, self.norm.eps, self.slope, self.window
        )
        return like(y, x), Fused(y, place, x5, mean, s, x.ndim == 3)

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        gamma, _ = self.norm.affine(k, w, 1, dy)
        dx = k.empty(saved.x.shape, np.result_type(dy.dtype, saved.y.dtype))
        k.norm_act_pool_backward(
            dx,
            *self.norm.gradients(k, dw, dx),
            images(dy),
            *saved[:5],
            gamma,
            self.slope,
            self.window,
        )
        return like(dx, dy)

    def r_forward(self, k, w, rw, saved, rx):
        rx5 = k.xp.zeros_like(saved.x) if rx is None else images(rx)
        gamma, _ = self.norm.affine(k, w, 1, rx5)
        rgamma, rbeta = self.norm.affine(k, rw, 0, rx5)
        ry = k.empty(saved.y.shape, saved.y.dtype)
        rmean, xh_rx = (k.empty(saved.s.shape, saved.s.dtype) for _ in range(2))
        k.norm_act_pool_r_forward(
            ry, rmean, xh_rx, rx5, *saved[:5], gamma, rgamma, rbeta, self.slope, self.window
        )
        ry = ry.reshape(ry.shape[:3]) if saved.of_vectors else ry
        return ry, Tangents(rx5, rmean, xh_rx)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        (gamma, _), (rgamma, _) = self.norm.affine(k, w, 1, dy), self.norm.affine(k, rw, 0, dy)
        rdx = k.empty(saved.x.shape, rdy.dtype)
        k.norm_act_pool_r_backward(
            rdx, *self.norm.gradients(k, rdw, rdx), images(dy), images(rdy),
            *saved[:5], *rsaved, gamma, rgamma, self.slope, self.window,
        )  # fmt: skip
        return like(rdx, rdy)


def images(a):
    """(T, N, C) -> (T, N, C, 1, 1); images as they are."""
    return a.reshape(*a.shape[:3], *(a.shape[3:] or (1, 1)))


def like(a, given):
    """Images as (T, N, C) where `given`, an input or its adjoint, holds vectors."""
    return a.reshape(a.shape[:3]) if given.ndim == 3 else a


@dataclass(frozen=True)
class Identity(Layer):
    """y = x: it has the place of `layer`, whose work a layer in front of it does."""

    layer: object

    def forward(self, k, w, x):
        return x, None

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        return dy

    def r_forward(self, k, w, rw, saved, rx):
        return rx, None

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        return rdy
