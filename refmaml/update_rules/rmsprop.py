"""RMSprop: the gradient over the root of a moving average of its squares."""

from dataclasses import dataclass
from typing import NamedTuple

from refmaml.arguments import check_bool, check_not_negative
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


class Averages(NamedTuple):
    """The numbers of one step: h, v', a', r, D = r + eps, q = h / D, b'."""

    h: Array
    v: Array
    a: Array
    r: Array
    D: Array
    q: Array
    b: Array


class AverageAdjoints(NamedTuple):
    """The adjoints of v', a', q, D and of the number u under the root."""

    v: Array
    a: Array
    q: Array
    D: Array
    u: Array


@dataclass(frozen=True)
class RMSprop(UpdateRule):
    """h = g + wd phi;  v' = al v + (1 - al) h^2;  r = sqrt(v' + eps_root);
    q = h / (r + eps);  d = q, or with momentum d = b' = mu b + q.
    centered: a' = al a + (1 - al) h and r = sqrt(v' - a'^2 + eps_root).

    alpha (al), eps, weight_decay (wd), momentum (mu), centered: as torch.optim.RMSprop
    eps_root  inside the root; 0 in PyTorch
    Raises ArgumentError for alpha outside [0, 1), numbers < 0, and eps = eps_root = 0.
    Source: Tieleman, Hinton 2012, lecture 6.5; centered: Graves 2013, eq. 38-45, in
    PyTorch's form.

    The adjoint:

        dq = sig_b + dd (momentum), or dd          db = mu dq
        dD = -dq h / D^2     du = dD / (2 r)       dv' = sig_v + du
        da' = sig_a - 2 a' du (centered), or 0
        gam = dq / D + 2 (1 - al) h dv' + (1 - al) da'
        dv = al dv'          da = al da'           dphi = wd gam
        dM/dal += <dv', v - h^2> + <da', a - h>    dM/dmu += <dq, b>
        dM/deps += <dD, 1>   dM/deps_root += <du, 1>   dM/dwd += <gam, phi>
    """

    alpha: float = 0.99
    eps: float = 1e-8
    eps_root: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        check_fractions(alpha=self.alpha)
        check_eps(self.eps, self.eps_root)
        check_not_negative(weight_decay=self.weight_decay, momentum=self.momentum)
        check_bool("centered", self.centered)

    def init(self, phi):
        return zeros(phi, "v", *(["a"] * self.centered), *(["b"] * (self.momentum != 0)))

    def averages(self, net, phi, g, state):
        """The Averages of a step."""
        al = self.alpha
        h = g + self.weight_decay * phi if self.weight_decay else g
        v = al * state["v"] + (1 - al) * h * h
        a = al * state["a"] + (1 - al) * h if self.centered else 0
        r = net.kernels.xp.sqrt(v - a * a + self.eps_root)
        q = h / (r + self.eps)
        b = self.momentum * state["b"] + q if self.momentum else q
        return Averages(h, v, a, r, r + self.eps, q, b)

    def direction(self, net, phi, g, state, factors):
        s = self.averages(net, phi, g, state)
        after = {"v": s.v, "a": s.a, "b": s.b}
        return s.b, {name: after[name] for name in state}

    def average_adjoints(self, net, s, dd, dstate):
        """The AverageAdjoints of a step with Averages s."""
        dq = dstate.get("b", 0) + dd
        dD = -dq * s.h / (s.D * s.D)
        du = root_adjoint(net, dD, s.r, self)
        da = dstate.get("a", 0) - 2 * s.a * du if self.centered else 0 * du
        return AverageAdjoints(dstate.get("v", 0) + du, da, dq, dD, du)

    def gradient_adjoint(self, s, back):
        """gam."""
        return back.q / s.D + (1 - self.alpha) * (2 * s.h * back.v + back.a)

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        s = self.averages(net, phi, g, state)
        back = self.average_adjoints(net, s, dd, dstate)
        before = {"v": self.alpha * back.v, "a": self.alpha * back.a, "b": self.momentum * back.q}
        gam = self.gradient_adjoint(s, back)
        return Pullback(gam, {name: before[name] for name in state}, self.weight_decay * gam)

    def hypergradients(self, net, dd, dstate, phi, g, state, t):
        s = self.averages(net, phi, g, state)
        back = self.average_adjoints(net, s, dd, dstate)
        of_alpha = inner(back.v, state["v"] - s.h * s.h)
        if self.centered:
            of_alpha = of_alpha + inner(back.a, state["a"] - s.h)
        out = {
            "alpha": of_alpha,
            "eps": total(back.D),
            "eps_root": total(back.u),
            "weight_decay": inner(self.gradient_adjoint(s, back), phi),
        }
        return {**out, "momentum": inner(back.q, state["b"])} if self.momentum else out
