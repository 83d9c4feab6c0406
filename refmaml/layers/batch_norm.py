"""Batch normalisation with the statistics of the same batch.

batch_norm.md derives the four passes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.arguments import check_bool, check_integer, check_positive_number, set_fields
from refmaml.errors import expect
from refmaml.layers.extents import rows
from refmaml.layers.layer import Layer


class Normalised(NamedTuple):
    """What a pass saves, or the tangents of it.

    xh  the normalised input, in the input's shape (T, N, C, ...)
    s   1 / sqrt(var + eps) (T, C)
    """

    xh: np.ndarray
    s: np.ndarray


@dataclass(frozen=True)
class BatchNorm2d(Layer):
    """y = gamma (x - <x>) / sqrt(<(x - <x>)^2> + eps) + beta.

    <.> is the mean over the N H W values of a task and channel; the variance is the
    biased one. Inputs are images (C, H, W) or vectors (C,).
    Parameters: weight = gamma (C,) unless gamma=False (then 1), bias = beta (C,) unless
    beta=False (then 0).
    There are no running statistics: the query set is normalised with its own mean and
    variance, as in MAML ("transductive").
    Raises ArgumentError unless num_features is an integer >= 1 and eps a number > 0.
    Source: Ioffe & Szegedy 2015, Algorithm 1; batch_norm.md derives the R-passes.
    """

    num_features: int
    eps: float = 1e-5
    gamma: bool = True
    beta: bool = True

    def __post_init__(self) -> None:
        remark = " (a constant channel has variance 0)"
        set_fields(
            self,
            num_features=check_integer("num_features", self.num_features),
            eps=check_positive_number("eps", self.eps, remark),
            gamma=check_bool("gamma", self.gamma),
            beta=check_bool("beta", self.beta),
        )

    def shapes(self) -> dict[str, tuple]:
        C = (self.num_features,)
        return {**({"weight": C} if self.gamma else {}), **({"bias": C} if self.beta else {})}

    def output_shape(self, shape: tuple) -> tuple:
        ok = len(shape) in (1, 3) and shape[0] == self.num_features
        wanted = f"shape ({self.num_features}, H, W) or ({self.num_features},)"
        expect(ok, "input of BatchNorm2d", wanted, f"shape {tuple(shape)}")
        return tuple(shape)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        values = {"weight": np.ones(self.num_features), "bias": np.zeros(self.num_features)}
        return {name: values[name] for name in self.shapes()}

    def affine(self, k, w, absent_gamma, like):
        """(gamma, beta) from the parameters w, or their tangents.

        A layer without gamma has absent_gamma in its place: 1, or 0 as a tangent. A
        layer without beta has 0.
        """

        def constant(value):
            return k.constant((1, self.num_features), value, like.dtype)

        gamma = w["weight"] if self.gamma else constant(absent_gamma)
        beta = w["bias"] if self.beta else constant(0)
        return gamma, beta

    def gradients(self, k, dw, dy):
        """The arrays that (dgamma, dbeta) are written to: those in dw.

        A parameter that the layer does not have gets an array that is not used
        afterwards.
        """
        shape = len(dy), self.num_features
        dgamma = dw["weight"] if self.gamma else k.empty(shape, dy.dtype)
        dbeta = dw["bias"] if self.beta else k.empty(shape, dy.dtype)
        return dgamma, dbeta

    def forward(self, k, w, x):
        gamma, beta = self.affine(k, w, 1, x)
        x4 = rows(x)
        dtype = np.result_type(x.dtype, gamma.dtype, beta.dtype)
        y, xh = k.empty(x4.shape, dtype), k.empty(x4.shape, dtype)
        s = k.empty((len(x), self.num_features), dtype)
        k.batch_norm_forward(y, xh, s, x4, gamma, beta, self.eps)
        return y.reshape(x.shape), Normalised(xh.reshape(x.shape), s)

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        gamma, _ = self.affine(k, w, 1, dy)
        xh, s = rows(saved.xh), saved.s
        dx = k.empty(xh.shape, np.result_type(dy.dtype, xh.dtype))
        k.batch_norm_backward(dx, *self.gradients(k, dw, dx), rows(dy), xh, s, gamma)
        return dx.reshape(dy.shape)

    def r_forward(self, k, w, rw, saved, rx):
        rx = k.xp.zeros_like(saved.xh) if rx is None else rx
        (gamma, _), (rgamma, rbeta) = self.affine(k, w, 1, rx), self.affine(k, rw, 0, rx)
        xh, s = rows(saved.xh), saved.s
        ry, rxh = k.empty(xh.shape, xh.dtype), k.empty(xh.shape, xh.dtype)
        rs = k.empty(s.shape, s.dtype)
        k.batch_norm_r_forward(ry, rxh, rs, rows(rx), xh, s, gamma, rgamma, rbeta)
        return ry.reshape(rx.shape), Normalised(rxh.reshape(rx.shape), rs)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        (gamma, _), (rgamma, _) = self.affine(k, w, 1, dy), self.affine(k, rw, 0, dy)
        xh, rxh = rows(saved.xh), rows(rsaved.xh)
        rdx = k.empty(xh.shape, rdy.dtype)
        k.batch_norm_r_backward(
            rdx, *self.gradients(k, rdw, rdx), rows(dy), rows(rdy),
            xh, saved.s, rxh, rsaved.s, gamma, rgamma,
        )  # fmt: skip
        return rdx.reshape(dy.shape)
