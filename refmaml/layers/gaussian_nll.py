"""Gaussian negative log-likelihood: a net that predicts means and variances."""

from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import numpy as np

from refmaml.arguments import check_bool, set_fields
from refmaml.errors import expect
from refmaml.layers.real_targets import RealTargets


class Standardised(NamedTuple):
    """What the loss saves: e / sigma and 1 / sigma, each (T, N, D), and the scale."""

    u: np.ndarray
    inverse: np.ndarray
    scale: float


@dataclass(frozen=True)
class GaussianNLL(RealTargets):
    """loss[t] = scale sum_{n,d} (v + (m - target)^2 e^-v) / 2 for outputs z = (m, v).

    The 2 D outputs z (T, N, 2 D) are D means m, then D log-variances v: the variance
    e^v is positive for every v, and has no lower bound. Targets are (T, N, D).

    With i = e^(-v / 2) = 1 / sigma and u = (m - target) i:

        l = (v + u^2) / 2     dm = u i           dv = (1 - u^2) / 2
        ru = i rm - u rv / 2  rdm = i (ru - u rv / 2)   rdv = -u ru

    as ri = -i rv / 2. u is squared after the product, so that e^-v may overflow where
    the loss does not.

    reduction  as in MSE: "mean" 1 / (N D), "sum" 1, "sum/K" 1 / N
    full       True: the constant log(2 pi) / 2 is added to every term
    Raises ArgumentError for another reduction or `full`, and for an odd number of
    outputs.
    PyTorch: torch.nn.GaussianNLLLoss with var = e^v, as far as e^v >= its eps.
    Source: Nix & Weigend 1994, eq. 3.
    """

    full: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, full=check_bool("full", self.full))

    def target_shape(self, output_shape):
        """(D,), for 2 D outputs."""
        return (output_shape[0] // 2,)

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless outputs are pairs and `targets` are (T, N, D)."""
        expect(
            len(output_shape) == 1 and output_shape[0] % 2 == 0,
            "net",
            "outputs of shape (2 D,) for GaussianNLL: D means, then D log-variances",
            lambda: f"{output_shape}",
        )
        super().check(output_shape, targets, examples)

    def forward(self, k, z, targets):
        _, N, D = targets.shape
        scale, v = self.scale(N, D), z[:, :, D:]
        inverse = k.xp.exp(-v / 2)
        u = (z[:, :, :D] - targets) * inverse
        constant = log(2 * pi) if self.full else 0
        loss = (scale / 2) * (v + u * u + constant).sum(axis=(1, 2))
        return loss, Standardised(u, inverse, scale)

    def backward(self, k, saved):
        u, inverse, scale = saved
        return k.xp.concatenate([scale * u * inverse, (scale / 2) * (1 - u * u)], axis=2)

    def r_backward(self, k, saved, rz):
        u, inverse, scale = saved
        D = u.shape[2]
        rm, rv = rz[:, :, :D], rz[:, :, D:]
        ru = inverse * rm - u * rv / 2
        return k.xp.concatenate([scale * inverse * (ru - u * rv / 2), -scale * u * ru], axis=2)
