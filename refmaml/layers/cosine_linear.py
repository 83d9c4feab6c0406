"""The cosine head: a Linear layer on normalised inputs and normalised weights.

With s(a) = sqrt(<a, a> + eps) the vector n(a) = a / s(a) has length 1, up to eps. Its
derivative is symmetric, so that the same product makes tangents and adjoints:

    N b  = (b - n <n, b>) / s               b = ra gives rn;  b = dn gives da
    rs   = <n, ra>
    R{N b} = N rb - (rn <n, b> + n <rn, b>) / s - (rs / s) N b

The last line is the product rule on the first. With u = n(x), v_o = n(w_o), and z the
Linear layer with the weights v on the inputs u, y = a z for a number a:

    backward     dz  = a dy                     da  = sum dy z
    r_forward    ry  = a rz + ra z
    r_backward   rdz = a rdy + ra dy            rda = sum (rdy z + dy rz)

and the passes of Linear (bilinear.py) lead from z to u and v.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import check_bool, check_number, check_positive_number, set_fields
from refmaml.layers.bilinear import Linear
from refmaml.layers.initialise import torch_uniform
from refmaml.layers.layer import Array, Layer


class Unit(NamedTuple):
    """n(a) (T, N, F) and s(a) (T, N, 1) of vectors a along the last axis."""

    n: Array
    s: Array

    @classmethod
    def of(cls, xp: Any, a: Array, eps: float) -> "Unit":
        """a / sqrt(<a, a> + eps) with its denominator."""
        s = xp.sqrt((a * a).sum(axis=-1, keepdims=True) + eps)
        return cls(a / s, s)

    def product(self, b: Array) -> Array:
        """N b."""
        return (b - self.n * along(self.n, b)) / self.s

    def r_product(self, r: "Unit", b: Array, rb: Array) -> Array:
        """R{N b}; r has rn and rs, the tangents of n and s."""
        turned = r.n * along(self.n, b) + self.n * along(r.n, b)
        return self.product(rb) - (turned + r.s * self.product(b)) / self.s

    def tangent(self, ra: Array) -> "Unit":
        """rn = N ra and rs = <n, ra>."""
        return Unit(self.product(ra), along(self.n, ra))


def along(a: Array, b: Array) -> Array:
    """<a, b> of the vectors along the last axis, kept for broadcasting."""
    return (a * b).sum(axis=-1, keepdims=True)


class Saved(NamedTuple):
    """The units of x and w, and z. In r_forward their tangents; rx None: u is None."""

    u: Unit | None
    v: Unit
    z: Array


@dataclass(frozen=True)
class CosineLinear(Layer):
    """y[t,n,o] = a <x, w_o> / (|x| |w_o|), |x| meaning sqrt(<x, x> + eps).

    The cosine head of few-shot classifiers: scores in [-a, a] that depend on directions
    alone.
    Parameters: weight (O, I) with O = out_features, I = in_features; scale (1,), which
    is a, if learned_scale. Otherwise a is the field `scale`.
    eps  keeps a zero vector differentiable: its unit vector is 0, with slope
         1 / sqrt(eps). PyTorch's F.normalize has max(|x|, eps) instead; with |x|^2 = 1
         both differ by eps / 2
    Raises ArgumentError unless sizes are integers >= 1, scale is a finite number, and
    eps a number > 0.
    Source: Gidaris & Komodakis 2018, eq. 3-4; Chen et al. 2019, section 3.2
    (Baseline++, a fixed scale).
    """

    in_features: int
    out_features: int
    scale: float = 10.0
    learned_scale: bool = True
    eps: float = 1e-5

    def __post_init__(self) -> None:
        set_fields(
            self,
            in_features=self.linear.in_features,
            out_features=self.linear.out_features,
            scale=check_number("scale", self.scale),
            learned_scale=check_bool("learned_scale", self.learned_scale),
            eps=check_positive_number("eps", self.eps, " (a zero vector has no direction)"),
        )

    @classmethod
    def examples(cls) -> list[tuple]:
        """[(layer, shape of one input), ...]"""
        fixed = cls(4, 2, scale=2.0, learned_scale=False, eps=0.1)
        return [(cls(5, 3), (5,)), (fixed, (4,)), (cls(1, 2, eps=0.5), (1,))]

    @property
    def linear(self) -> Linear:
        """The Linear layer from u to z."""
        return Linear(self.in_features, self.out_features, bias=False)

    def shapes(self) -> dict[str, tuple]:
        weight = {"weight": (self.out_features, self.in_features)}
        return {**weight, "scale": (1,)} if self.learned_scale else weight

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = self.out_features, self.in_features
        weight = {"weight": torch_uniform(rng, shape, *shape[::-1])}
        return {**weight, "scale": np.full(1, self.scale)} if self.learned_scale else weight

    def output_shape(self, shape: tuple) -> tuple:
        return self.linear.output_shape(shape)

    def factor(self, w: dict) -> Any:
        """a: a number, or (T or 1, 1, 1)."""
        return w["scale"][:, :, None] if self.learned_scale else self.scale

    def forward(self, k, w, x):
        u, v = Unit.of(k.xp, x, self.eps), Unit.of(k.xp, w["weight"], self.eps)
        z = self.linear.product(k, u.n, v.n)
        return self.factor(w) * z, Saved(u, v, z)

    def adjoints(self, k, saved, dz, need_dx):
        """(du, dv) of z; du is None where no pass needs it."""
        u, v = saved.u.n, saved.v.n
        dv = k.empty((len(dz), *v.shape[1:]), np.result_type(dz.dtype, u.dtype))
        self.linear.product_dw(k, dv, u, dz)
        return (self.linear.product_dx(k, dz, v, u.shape) if need_dx else None), dv

    def r_adjoints(self, k, saved, rsaved, dz, rdz, need_dx):
        """R{(du, dv)}."""
        (u, v), rv = (saved.u.n, saved.v.n), rsaved.v.n
        rdv = k.empty((len(dz), *v.shape[1:]), np.result_type(rdz.dtype, u.dtype))
        if rsaved.u is None:
            self.linear.product_dw(k, rdv, u, rdz)
        else:
            self.linear.r_product_dw(k, rdv, u, rsaved.u.n, dz, rdz)
        return (self.linear.r_product_dx(k, dz, rdz, v, rv, u.shape) if need_dx else None), rdv

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        du, dv = self.adjoints(k, saved, self.factor(w) * dy, need_dx)
        dw["weight"][...] = saved.v.product(dv)
        if self.learned_scale:
            dw["scale"][...] = (dy * saved.z).sum(axis=(1, 2))[:, None]
        return saved.u.product(du) if need_dx else None

    def r_forward(self, k, w, rw, saved, rx):
        u, rv = saved.u, saved.v.tangent(rw["weight"])
        if rx is None:
            ru, rz = None, self.linear.product(k, u.n, rv.n)
        else:
            ru = u.tangent(rx)
            rz = self.linear.r_product(k, u.n, ru.n, saved.v.n, rv.n)
        ry = self.factor(w) * rz
        if self.learned_scale:
            ry = ry + self.factor(rw) * saved.z
        return ry, Saved(ru, rv, rz)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        dz, rdz = self.factor(w) * dy, self.factor(w) * rdy
        if self.learned_scale:
            rdz = rdz + self.factor(rw) * dy
            rdw["scale"][...] = (rdy * saved.z + dy * rsaved.z).sum(axis=(1, 2))[:, None]
        # Where rx is None there is no tangent of u; a net needs no rdx there.
        du, dv = self.adjoints(k, saved, dz, need_dx)
        rdu, rdv = self.r_adjoints(k, saved, rsaved, dz, rdz, need_dx)
        rdw["weight"][...] = saved.v.r_product(rsaved.v, dv, rdv)
        return saved.u.r_product(rsaved.u, du, rdu) if need_dx else None
