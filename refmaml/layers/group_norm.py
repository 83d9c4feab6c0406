"""Normalisation over groups of numbers of one example: group, layer, instance norm.

The three layers differ in their groups and in the shape of gamma and beta. They have
the same four passes, which group_norm.md derives.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from refmaml.arguments import (
    check_bool,
    check_integer,
    check_positive_number,
    is_integer,
    set_fields,
)
from refmaml.errors import expect
from refmaml.layers.batch_norm import Normalised
from refmaml.layers.extents import expect_images, rows
from refmaml.layers.layer import Array, Layer


class ExampleNorm(Layer):
    """The four passes. The kernels see an example as C channels of L positions in G
    groups, and gamma as (C, A): A = 1 or A = L numbers for each channel.

    A subclass has eps, `shapes`, and these two functions. Normalised holds xh
    (T, N, C, L) and s (T, N, G).
    """

    eps: float

    def view(self, x: Array) -> Array:
        """x (T, N, ...) as (T, N, C, L)."""
        raise NotImplementedError

    def extents(self) -> tuple[int, int, int]:
        """(G, C, A)."""
        raise NotImplementedError

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        start = {"weight": np.ones, "bias": np.zeros}
        return {name: start[name](shape) for name, shape in self.shapes().items()}

    def gamma_beta(self, k, w, absent_gamma, like):
        """(gamma, beta) from the parameters w, or their tangents, (T or 1, C, A).

        A layer without gamma has absent_gamma in its place: 1, or 0 as a tangent. A
        layer without beta has 0.
        """
        absent, (_, C, A) = {"weight": absent_gamma, "bias": 0}, self.extents()
        return [
            w[name].reshape(len(w[name]), C, A)
            if name in self.shapes()
            else k.constant((1, C, A), absent[name], like.dtype)
            for name in ("weight", "bias")
        ]

    def gradients(self, k, dw, dx):
        """The arrays (T, C, A) that (dgamma, dbeta) are written to: those in dw.

        A parameter that the layer does not have gets an array that is not used
        afterwards.
        """
        shape = len(dx), *self.extents()[1:]
        return [
            dw[name].reshape(shape) if name in self.shapes() else k.empty(shape, dx.dtype)
            for name in ("weight", "bias")
        ]

    def forward(self, k, w, x):
        (gamma, beta), x4 = self.gamma_beta(k, w, 1, x), self.view(x)
        dtype = np.result_type(x.dtype, gamma.dtype, beta.dtype)
        y, xh = k.empty(x4.shape, dtype), k.empty(x4.shape, dtype)
        s = k.empty((*x4.shape[:2], self.extents()[0]), dtype)
        k.group_norm_forward(y, xh, s, x4, gamma, beta, self.eps)
        return y.reshape(x.shape), Normalised(xh.reshape(x.shape), s)

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        gamma, _ = self.gamma_beta(k, w, 1, dy)
        xh, s = self.view(saved.xh), saved.s
        dx = k.empty(xh.shape, np.result_type(dy.dtype, xh.dtype))
        k.group_norm_backward(dx, *self.gradients(k, dw, dx), self.view(dy), xh, s, gamma)
        return dx.reshape(dy.shape)

    def r_forward(self, k, w, rw, saved, rx):
        rx = k.xp.zeros_like(saved.xh) if rx is None else rx
        (gamma, _), (rgamma, rbeta) = self.gamma_beta(k, w, 1, rx), self.gamma_beta(k, rw, 0, rx)
        xh, s = self.view(saved.xh), saved.s
        ry, rxh = k.empty(xh.shape, xh.dtype), k.empty(xh.shape, xh.dtype)
        rs = k.empty(s.shape, s.dtype)
        k.group_norm_r_forward(ry, rxh, rs, self.view(rx), xh, s, gamma, rgamma, rbeta)
        return ry.reshape(rx.shape), Normalised(rxh.reshape(rx.shape), rs)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        (gamma, _), (rgamma, _) = self.gamma_beta(k, w, 1, dy), self.gamma_beta(k, rw, 0, dy)
        xh, rxh = self.view(saved.xh), self.view(rsaved.xh)
        rdx = k.empty(xh.shape, rdy.dtype)
        k.group_norm_r_backward(
            rdx, *self.gradients(k, rdw, rdx), self.view(dy), self.view(rdy),
            xh, saved.s, rxh, rsaved.s, gamma, rgamma,
        )  # fmt: skip
        return rdx.reshape(dy.shape)


EPS_REMARK = " (a group of equal numbers has variance 0)"


@dataclass(frozen=True)
class GroupNorm(ExampleNorm):
    """y = gamma (x - <x>) / sqrt(<(x - <x>)^2> + eps) + beta, for groups of channels.

    <.> is the mean over all numbers of one example in a group of num_channels /
    num_groups channels that follow each other; the variance is the biased one. Inputs
    are images (C, H, W) or vectors (C,).
    Parameters if affine: weight = gamma (C,), bias = beta (C,). Otherwise gamma = 1,
    beta = 0.
    Raises ArgumentError unless both numbers are integers >= 1, num_channels is a
    multiple of num_groups, and eps is a number > 0.
    Source: Wu & He 2018, eq. 1-7; group_norm.md derives the R-passes.
    """

    num_groups: int
    num_channels: int
    eps: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            num_groups=check_integer("num_groups", self.num_groups),
            num_channels=check_integer("num_channels", self.num_channels),
            eps=check_positive_number("eps", self.eps, EPS_REMARK),
            affine=check_bool("affine", self.affine),
        )
        expect(
            self.num_channels % self.num_groups == 0,
            "num_groups",
            f"a divisor of num_channels = {self.num_channels}",
            repr(self.num_groups),
        )

    @classmethod
    def examples(cls) -> list[tuple]:
        return [
            (cls(2, 4), (4, 3, 2)),
            (cls(1, 3, eps=0.1), (3, 2, 2)),
            (cls(3, 3, affine=False), (3, 4, 2)),
            (cls(2, 8), (8,)),
        ]

    def shapes(self) -> dict[str, tuple]:
        C = (self.num_channels,)
        return {"weight": C, "bias": C} if self.affine else {}

    def output_shape(self, shape: tuple) -> tuple:
        expect(
            len(shape) in (1, 3) and shape[0] == self.num_channels,
            "input of GroupNorm",
            f"shape ({self.num_channels}, H, W) or ({self.num_channels},)",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def view(self, x: Array) -> Array:
        return rows(x)

    def extents(self) -> tuple[int, int, int]:
        return self.num_groups, self.num_channels, 1


@dataclass(frozen=True)
class InstanceNorm2d(ExampleNorm):
    """y = gamma (x - <x>) / sqrt(<(x - <x>)^2> + eps) + beta, for each channel.

    <.> is the mean over the H W pixels of one channel of one example; the variance is
    the biased one. Inputs are images (C, H, W) of more than one pixel.
    Parameters if affine: weight = gamma (C,), bias = beta (C,). Otherwise gamma = 1,
    beta = 0. There are no running statistics.
    Raises ArgumentError unless num_features is an integer >= 1 and eps a number > 0.
    Source: Ulyanov et al. 2016, eq. 3; group_norm.md derives the R-passes.
    """

    num_features: int
    eps: float = 1e-5
    affine: bool = False

    def __post_init__(self) -> None:
        set_fields(
            self,
            num_features=check_integer("num_features", self.num_features),
            eps=check_positive_number("eps", self.eps, EPS_REMARK),
            affine=check_bool("affine", self.affine),
        )

    @classmethod
    def examples(cls) -> list[tuple]:
        return [(cls(3), (3, 4, 2)), (cls(2, eps=0.1, affine=True), (2, 3, 4))]

    def shapes(self) -> dict[str, tuple]:
        C = (self.num_features,)
        return {"weight": C, "bias": C} if self.affine else {}

    def output_shape(self, shape: tuple) -> tuple:
        expect_images(shape, self.num_features, "InstanceNorm2d")
        expect(
            shape[1] * shape[2] > 1,
            "input of InstanceNorm2d",
            "more than one pixel",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def view(self, x: Array) -> Array:
        return rows(x)

    def extents(self) -> tuple[int, int, int]:
        return self.num_features, self.num_features, 1


@dataclass(frozen=True)
class LayerNorm(ExampleNorm):
    """y = gamma (x - <x>) / sqrt(<(x - <x>)^2> + eps) + beta over the last dimensions.

    <.> is the mean over the dimensions of normalized_shape of one example; the variance
    is the biased one. Inputs have any dimensions before those: normalized_shape is
    (F,), or F for short, for vectors, and (C, H, W), (H, W) or (W,) for images.
    Parameters if elementwise_affine: weight = gamma and, unless bias=False, bias =
    beta, both of normalized_shape. Otherwise gamma = 1, beta = 0.
    Raises ArgumentError unless normalized_shape is an integer >= 1 or some of them, and
    eps a number > 0.
    Source: Ba et al. 2016, eq. 3-4; group_norm.md derives the R-passes.
    """

    normalized_shape: Any
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        given = self.normalized_shape
        shape = tuple(given) if isinstance(given, tuple | list) else (given,)
        expect(
            len(shape) > 0 and all(is_integer(n) and n >= 1 for n in shape),
            "normalized_shape",
            "an integer >= 1 or a tuple of them",
            lambda: repr(given),
        )
        set_fields(
            self,
            normalized_shape=tuple(map(int, shape)),
            eps=check_positive_number("eps", self.eps, EPS_REMARK),
            elementwise_affine=check_bool("elementwise_affine", self.elementwise_affine),
            bias=check_bool("bias", self.bias),
        )

    @classmethod
    def examples(cls) -> list[tuple]:
        return [
            (cls(5), (5,)),
            (cls((3, 4, 2)), (3, 4, 2)),
            (cls((3, 2, 2), eps=0.1, bias=False), (3, 2, 2)),
            (cls((4, 2), elementwise_affine=False), (3, 4, 2)),
            (cls((2, 4)), (2, 2, 4)),
            (cls(4), (2, 2, 4)),
        ]

    def shapes(self) -> dict[str, tuple]:
        if not self.elementwise_affine:
            return {}
        names = ("weight", "bias") if self.bias else ("weight",)
        return dict.fromkeys(names, self.normalized_shape)

    def output_shape(self, shape: tuple) -> tuple:
        expect(
            tuple(shape)[-len(self.normalized_shape) :] == self.normalized_shape,
            "input of LayerNorm",
            f"a shape that ends in {self.normalized_shape}",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def view(self, x: Array) -> Array:
        """Dimensions before normalized_shape count as further examples."""
        C, *rest = self.normalized_shape
        before = prod(x.shape[1 : x.ndim - 1 - len(rest)])
        return x.reshape(len(x), before, C, prod(rest))

    def extents(self) -> tuple[int, int, int]:
        C, *rest = self.normalized_shape
        return 1, C, prod(rest)
