"""Batch normalisation in evaluation mode: the statistics are constants.

With s = 1 / sqrt(running_var + eps), constant too, it is linear in x:

    forward     xh = (x - running_mean) s          y = gamma xh + beta
    backward    dgamma = sum dy xh                 dbeta = sum dy
                dx = gamma s dy
    r_forward   rxh = s rx                         ry = rgamma xh + gamma rxh + rbeta
    r_backward  rdgamma = sum (rdy xh + dy rxh)    rdbeta = sum rdy
                rdx = s (rgamma dy + gamma rdy)

The sums are over the N H W values of a task and channel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.arguments import check_bool, check_integer, check_positive_number, set_fields
from refmaml.errors import expect
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.extents import rows
from refmaml.layers.layer import Layer


class Standardised(NamedTuple):
    """xh (T, N, C, pixels), or its tangent."""

    xh: np.ndarray


@dataclass(frozen=True)
class EvalBatchNorm2d(Layer):
    """y = gamma (x - running_mean) / sqrt(running_var + eps) + beta.

    num_features  C; inputs are images (C, H, W) or vectors (C,)
    running_mean, running_var  C numbers each, as torch.nn.BatchNorm2d keeps them; they
                  do not depend on the batch and are not learned
    eps, gamma, beta  as in BatchNorm2d: so are the parameters and their names
    `evaluation_mode` makes these layers of a net's BatchNorm2d layers.
    Raises ArgumentError unless there are C finite means and C variances >= 0.
    Source: Ioffe & Szegedy 2015, Algorithm 2.
    """

    num_features: int
    running_mean: tuple
    running_var: tuple
    eps: float = 1e-5
    gamma: bool = True
    beta: bool = True

    def __post_init__(self) -> None:
        C = check_integer("num_features", self.num_features)
        mean, var = (
            statistics(name, getattr(self, name), C) for name in ("running_mean", "running_var")
        )
        expect(min(var) >= 0, "running_var", "numbers >= 0", lambda: repr(min(var)))
        set_fields(
            self,
            num_features=C,
            running_mean=mean,
            running_var=var,
            eps=check_positive_number("eps", self.eps),
            gamma=check_bool("gamma", self.gamma),
            beta=check_bool("beta", self.beta),
        )

    @classmethod
    def examples(cls):
        """(layer, shape of one input) for the ladder."""
        mean, var = (0.3, -1.0, 2.0), (0.5, 2.0, 1.0)
        return [
            (cls(3, mean, var), (3, 4, 2)),
            (cls(3, mean, var, eps=0.1, gamma=False), (3, 4, 2)),
            (cls(3, mean, var, beta=False), (3,)),
        ]

    def like(self) -> BatchNorm2d:
        """The BatchNorm2d with the same parameters."""
        return BatchNorm2d(self.num_features, self.eps, self.gamma, self.beta)

    def shapes(self) -> dict[str, tuple]:
        return self.like().shapes()

    def output_shape(self, shape: tuple) -> tuple:
        return self.like().output_shape(shape)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.like().init(rng)

    def constants(self, k, dtype):
        """(running_mean, s) of `dtype`, (C, 1) each."""
        key = "eval batch norm", self, np.dtype(dtype).char
        mean = np.array(self.running_mean)[:, None]
        s = 1 / np.sqrt(np.array(self.running_var) + self.eps)[:, None]
        return k.cached(key, lambda: k.arrays(mean.astype(dtype), s.astype(dtype)))

    def scale(self, w):
        """gamma (T, 1, C, 1), or 1."""
        return w["weight"][:, None, :, None] if self.gamma else 1

    def fill(self, dw, dgamma, dbeta):
        """Fills the gradients in dw from their terms (T, N, C, pixels)."""
        if self.gamma:
            dw["weight"][...] = dgamma.sum(axis=(1, 3))
        if self.beta:
            dw["bias"][...] = dbeta.sum(axis=(1, 3))

    def forward(self, k, w, x):
        mean, s = self.constants(k, x.real.dtype)
        xh = (rows(x) - mean) * s
        y = self.scale(w) * xh
        y = y + w["bias"][:, None, :, None] if self.beta else y
        return y.reshape(x.shape), Standardised(xh)

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        _, s = self.constants(k, dy.real.dtype)
        dy4 = rows(dy)
        self.fill(dw, dy4 * saved.xh, dy4)
        return (self.scale(w) * s * dy4).reshape(dy.shape)

    def r_forward(self, k, w, rw, saved, rx):
        xh = saved.xh
        _, s = self.constants(k, xh.real.dtype)
        rxh = 0 * xh if rx is None else s * rows(rx)
        ry = self.scale(w) * rxh
        ry = ry + rw["weight"][:, None, :, None] * xh if self.gamma else ry
        ry = ry + rw["bias"][:, None, :, None] if self.beta else ry
        shape = ry.shape if rx is None else rx.shape
        return ry.reshape(shape), Standardised(rxh)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        _, s = self.constants(k, rdy.real.dtype)
        dy4, rdy4 = rows(dy), rows(rdy)
        self.fill(rdw, rdy4 * saved.xh + dy4 * rsaved.xh, rdy4)
        rdx = self.scale(w) * rdy4
        rdx = rdx + rw["weight"][:, None, :, None] * dy4 if self.gamma else rdx
        return (s * rdx).reshape(rdy.shape)


def statistics(name, values, C):
    """C numbers as a tuple of Python's floats, else ArgumentError."""
    numbers = np.asarray(values, float).ravel() if np.ndim(values) == 1 else np.empty(0)
    ok = len(numbers) == C and np.isfinite(numbers).all()
    expect(ok, name, f"{C} finite numbers", lambda: repr(values))
    return tuple(map(float, numbers))
