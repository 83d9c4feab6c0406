"""Batch normalisation on the statistics of the batch at hand; the derivation of its four passes is in batch_norm.md."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.errors import expect
from refmaml.layers.extents import rows


class Normalised(NamedTuple):
    """What the forward pass leaves: the normalised input xh (T, N, C, L) and s = 1 / sqrt(var + eps) (T, C)."""

    xh: np.ndarray
    s: np.ndarray
    shape: tuple  # of x, (T, N, C) or (T, N, C, H, W)


@dataclass(frozen=True)
class BatchNorm2d:
    """y = gamma (x - <x>) / sqrt(<(x - <x>)^2> + eps) + beta, <.> over the N H W values of a task and channel.

    Parameters: weight = gamma (C,) unless gamma=False (then 1), bias = beta (C,) unless beta=False (then 0).
    There are no running statistics: query points are normalised with the query set's own, as in MAML ("transductive").
    The variance is the biased one. Vectors (C,) are taken as well as images (C, H, W).
    Source: Ioffe & Szegedy 2015, Algorithm 1; its R-passes are derived in batch_norm.md.
    """

    num_features: int
    eps: float = 1e-5
    gamma: bool = True
    beta: bool = True

    def __post_init__(self):
        expect(
            self.eps > 0, "eps", "a number > 0 (a constant channel has variance 0)", repr(self.eps)
        )

    def shapes(self):
        C = (self.num_features,)
        return {**({"weight": C} if self.gamma else {}), **({"bias": C} if self.beta else {})}

    def output_shape(self, shape):
        expect(
            len(shape) in (1, 3) and shape[0] == self.num_features,
            "input of BatchNorm2d",
            f"shape ({self.num_features}, H, W) or ({self.num_features},)",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def init(self, rng):
        values = {"weight": np.ones(self.num_features), "bias": np.zeros(self.num_features)}
        return {name: values[name] for name in self.shapes()}

    def affine(self, k, w, absent_gamma, like):
        """(gamma, beta) from the parameters; a missing gamma is `absent_gamma` (1, or 0 as a tangent), a missing beta 0."""

        def constant(value):
            return k.constant((1, self.num_features), value, like.dtype)

        return (
            w["weight"] if self.gamma else constant(absent_gamma),
            w["bias"] if self.beta else constant(0),
        )

    def gradients(self, k, dw, dy):
        """Where (dgamma, dbeta) go: into dw, or into scratch where the layer has no such parameter."""
        scratch = (dy.shape[0], self.num_features)
        return (
            dw["weight"] if self.gamma else k.empty(scratch, dy.dtype),
            dw["bias"] if self.beta else k.empty(scratch, dy.dtype),
        )

    def forward(self, k, w, x):
        gamma, beta = self.affine(k, w, 1, x)
        x4 = rows(x)
        y, xh = (
            k.empty(x4.shape, np.result_type(x.dtype, gamma.dtype, beta.dtype)) for _ in range(2)
        )
        s = k.empty((len(x), self.num_features), y.dtype)
        k.batch_norm_forward(y, xh, s, x4, gamma, beta, self.eps)
        return y.reshape(x.shape), Normalised(xh, s, x.shape)

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        gamma, _ = self.affine(k, w, 1, dy)
        dx = k.empty(saved.xh.shape, np.result_type(dy.dtype, saved.xh.dtype))
        k.batch_norm_backward(dx, *self.gradients(k, dw, dx), rows(dy), saved.xh, saved.s, gamma)
        return dx.reshape(dy.shape)

    def r_forward(self, k, w, rw, saved, rx):
        rx = k.xp.zeros(saved.shape, saved.xh.dtype) if rx is None else rx
        (gamma, _), (rgamma, rbeta) = self.affine(k, w, 1, rx), self.affine(k, rw, 0, rx)
        rx4 = rx.reshape(saved.xh.shape)
        ry, rxh = k.empty(rx4.shape, saved.xh.dtype), k.empty(rx4.shape, saved.xh.dtype)
        rs = k.empty(saved.s.shape, saved.s.dtype)
        k.batch_norm_r_forward(ry, rxh, rs, rx4, saved.xh, saved.s, gamma, rgamma, rbeta)
        return ry.reshape(rx.shape), Normalised(rxh, rs, rx.shape)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        (gamma, _), (rgamma, _) = self.affine(k, w, 1, dy), self.affine(k, rw, 0, dy)
        rdx = k.empty(saved.xh.shape, rdy.dtype)
        k.batch_norm_r_backward(
            rdx, *self.gradients(k, rdw, rdx), rows(dy), rows(rdy),
            saved.xh, saved.s, rsaved.xh, rsaved.s, gamma, rgamma,
        )  # fmt: skip
        return rdx.reshape(dy.shape)
