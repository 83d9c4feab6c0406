"""Gaussian negative log-likelihood whose standard deviation has a lower bound."""

from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import numpy as np

from refmaml.arguments import set_fields
from refmaml.errors import expect
from refmaml.layers.gaussian_nll import GaussianNLL
from refmaml.layers.logistic import sigmoid, softplus


class Spread(NamedTuple):
    """What the loss saves, each (T, N, D), and the scale.

    e = (target - m) / sigma; i = 1 / sigma; s1, s2: d sigma / ds and its derivative
    """

    e: np.ndarray
    i: np.ndarray
    s1: np.ndarray
    s2: np.ndarray
    scale: float


@dataclass(frozen=True)
class BoundedGaussianNLL(GaussianNLL):
    """loss[t] = scale sum_{n,d} [log sigma + e^2 / 2], e = (target - m) / sigma.

    The 2 D outputs z = (m, s) are D means, then D numbers s of the standard deviation
    sigma = floor + (1 - floor) log(1 + e^s), which is never below the floor: the
    likelihood cannot grow without bound where the net knows a target exactly. Targets
    are (T, N, D). With i = 1 / sigma, s1 = d sigma / ds and s2 = d^2 sigma / ds^2:

        dm = -e i            dsigma = (1 - e^2) i      ds = s1 dsigma
        rsigma = s1 rs       re = -(rm + e rsigma) i
        rdm = (e rsigma i - re) i
        rdsigma = -(2 e re + dsigma rsigma) i          rds = s2 rs dsigma + s1 rdsigma

    floor      in (0, 1)
    reduction, full  as in GaussianNLL
    Raises ArgumentError for other fields, and for an odd number of outputs.
    PyTorch: -torch.distributions.Normal(m, sigma).log_prob(target), with full=True.
    Source: Garnelo et al. 2018, the conditional neural process, in the authors' code:
    floor 0.1.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        floor = self.floor
        ok = isinstance(floor, int | float | np.floating) and 0 < floor < 1
        expect(ok, "floor", "a number in (0, 1)", lambda: repr(floor))
        set_fields(self, floor=float(floor))

    def split(self, k, z):
        """Means m and standard deviations sigma, each (T, N, D), of z (T, N, 2 D)."""
        D = z.shape[2] // 2
        return z[:, :, :D], self.floor + (1 - self.floor) * softplus(k.xp, z[:, :, D:])

    def forward(self, k, z, targets):
        _, N, D = targets.shape
        scale, (m, sigma) = self.scale(N, D), self.split(k, z)
        e = (targets - m) / sigma
        constant = log(2 * pi) / 2 if self.full else 0
        loss = scale * (k.xp.log(sigma) + e * e / 2 + constant).sum(axis=(1, 2))
        slope = sigmoid(k.xp, z[:, :, D:])
        s1 = (1 - self.floor) * slope
        return loss, Spread(e, 1 / sigma, s1, s1 * (1 - slope), scale)

    def backward(self, k, saved):
        e, i, s1, _, scale = saved
        return k.xp.concatenate([-scale * e * i, scale * s1 * (1 - e * e) * i], axis=2)

    def r_backward(self, k, saved, rz):
        e, i, s1, s2, scale = saved
        D = e.shape[2]
        rm, rs = rz[:, :, :D], rz[:, :, D:]
        rsigma, dsigma = s1 * rs, (1 - e * e) * i
        re = -(rm + e * rsigma) * i
        rdm, rdsigma = (e * rsigma * i - re) * i, -(2 * e * re + dsigma * rsigma) * i
        return k.xp.concatenate([scale * rdm, scale * (s2 * rs * dsigma + s1 * rdsigma)], axis=2)
