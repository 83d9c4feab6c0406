"""Adam, and AdamW, whose weight decay does not pass through the moments."""

from dataclasses import dataclass
from typing import NamedTuple

from refmaml.arguments import check_not_negative
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.update_rules.common import (
    check_eps,
    check_fractions,
    inner,
    root_adjoint,
    total,
    zeros,
)
from refmaml.update_rules.rule import Pullback, UpdateRule


class Moments(NamedTuple):
    """The numbers of one step: h, m', v', mh = m'/c1, r = sqrt(v'/c2 + eps_root), D."""

    h: Array
    m: Array
    v: Array
    mh: Array
    r: Array
    D: Array


class MomentAdjoints(NamedTuple):
    """The adjoints of m' (nu), v' (om), D, and v'/c2 + eps_root (u)."""

    nu: Array
    om: Array
    D: Array
    u: Array


@dataclass(frozen=True)
class Adam(UpdateRule):
    """h = g + wd phi;  m' = b1 m + (1 - b1) h;  v' = b2 v + (1 - b2) h^2;
    d = (m'/c1) / (sqrt(v'/c2 + eps_root) + eps),  c1 = 1 - b1^t, c2 = 1 - b2^t.

    betas (b1, b2), eps, weight_decay (wd): as torch.optim.Adam
    eps_root  inside the root, as in optax and TorchOpt; 0 in PyTorch
    Raises ArgumentError for betas outside [0, 1), numbers < 0, and eps = eps_root = 0.
    Source: Kingma, Ba 2015, Algorithm 1.

    The adjoint, with D = r + eps, r the root, mh = m'/c1:

        nu = sig_m + dd / (c1 D)
        dD = -dd mh / D^2     du = dD / (2 r)     om = sig_v + du / c2
        gam = (1 - b1) nu + 2 (1 - b2) h om
        dm = b1 nu            dv = b2 om          dphi = wd gam
        dM/deps += <dD, 1>    dM/deps_root += <du, 1>    dM/dwd += <gam, phi>
        dM/db1  += <nu, m - h> + <dd, mh / D> t b1^(t-1) / c1
        dM/db2  += <om, v - h^2> + <du, v'/c2> t b2^(t-1) / c2

    Where all gradients of a coordinate were 0, r = 0 and dD = 0: du = 0 is the limit.
    """

    betas: tuple = (0.9, 0.999)
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 0.0
    decoupled = False  # whether weight decay is outside the moments

    def __post_init__(self) -> None:
        pair = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        expect(pair, "betas", "two numbers in [0, 1)", repr(self.betas))
        check_fractions(**{"betas[0]": self.betas[0], "betas[1]": self.betas[1]})
        object.__setattr__(self, "betas", tuple(self.betas))
        check_eps(self.eps, self.eps_root)
        check_not_negative(weight_decay=self.weight_decay)

    def init(self, phi):
        return zeros(phi, "m", "v")

    def factors(self, t):
        """(c1, c2)."""
        return tuple(1 - b**t for b in self.betas)

    def moments(self, net, phi, g, state, factors):
        """The Moments of a step."""
        (b1, b2), (c1, c2) = self.betas, factors
        h = g + self.weight_decay * phi if self.weight_decay and not self.decoupled else g
        m = b1 * state["m"] + (1 - b1) * h
        v = b2 * state["v"] + (1 - b2) * h * h
        r = net.kernels.xp.sqrt(v / c2 + self.eps_root)
        return Moments(h, m, v, m / c1, r, r + self.eps)

    def direction(self, net, phi, g, state, factors):
        a = self.moments(net, phi, g, state, factors)
        d = a.mh / a.D
        return d + self.weight_decay * phi if self.decoupled else d, {"m": a.m, "v": a.v}

    def moment_adjoints(self, net, a, dd, dstate, factors):
        """The MomentAdjoints of a step with Moments a."""
        c1, c2 = factors
        dD = -dd * a.mh / (a.D * a.D)
        du = root_adjoint(net, dD, a.r, self)
        return MomentAdjoints(
            dstate.get("m", 0) + dd / (c1 * a.D), dstate.get("v", 0) + du / c2, dD, du
        )

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        (b1, b2), a = self.betas, self.moments(net, phi, g, state, factors)
        nu, om, _, _ = self.moment_adjoints(net, a, dd, dstate, factors)
        gam = (1 - b1) * nu + 2 * (1 - b2) * a.h * om
        return Pullback(
            gam, {"m": b1 * nu, "v": b2 * om}, self.weight_decay * (dd if self.decoupled else gam)
        )

    def hypergradients(self, net, dd, dstate, phi, g, state, t):
        (b1, b2), (c1, c2) = self.betas, self.factors(t)
        a = self.moments(net, phi, g, state, (c1, c2))
        nu, om, dD, du = self.moment_adjoints(net, a, dd, dstate, (c1, c2))
        gam = (1 - b1) * nu + 2 * (1 - b2) * a.h * om
        of_b1 = inner(nu, state["m"] - a.h) + inner(dd, a.mh / a.D) * (t * b1 ** (t - 1) / c1)
        of_b2 = inner(om, state["v"] - a.h * a.h) + inner(du, a.v) * (t * b2 ** (t - 1) / c2**2)
        return {
            "betas": net.kernels.xp.stack([of_b1, of_b2], axis=1),
            "eps": total(dD),
            "eps_root": total(du),
            "weight_decay": inner(dd if self.decoupled else gam, phi),
        }


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam's d on h = g, plus wd phi: phi' = (1 - A wd) phi - A mh / D.

    As torch.optim.AdamW, with its default weight_decay of 0.01. The adjoint is Adam's
    but for dphi = wd dd and dM/dwd += <dd, phi>.
    Source: Loshchilov, Hutter 2019, Algorithm 2, in PyTorch's form.
    """

    weight_decay: float = 0.01
    decoupled = True
