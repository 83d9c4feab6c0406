"""Stochastic gradient descent with momentum, Nesterov's too, and weight decay."""

from dataclasses import dataclass

from refmaml.arguments import check_bool, check_not_negative
from refmaml.errors import expect
from refmaml.update_rules.common import inner, zeros
from refmaml.update_rules.rule import Pullback, UpdateRule


@dataclass(frozen=True)
class SGD(UpdateRule):
    """h = g + wd phi;  m' = mu m + (1 - tau) h, m' = h in the first step;
    d = m', or h + mu m' with nesterov.

    momentum (mu), dampening (tau), nesterov, weight_decay (wd): as torch.optim.SGD
    Raises ArgumentError for a number < 0, and for nesterov without momentum or with
    dampening, as PyTorch does.
    Source: Polyak 1964; Nesterov as in Sutskever, Martens, Dahl, Hinton 2013, eq. 3-4,
    in PyTorch's form.

    The adjoint, with the tau of the step:

        dm' = sig + mu dd (nesterov), or sig + dd
        gam = (1 - tau) dm' + dd (nesterov), or (1 - tau) dm'
        dm  = mu dm'          dphi = wd gam
        dM/dmu  += <dm', m> + <dd, m'> (nesterov)        dM/dtau += -<dm', h>
        dM/dwd  += <gam, phi>
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative(momentum=self.momentum, weight_decay=self.weight_decay)
        check_not_negative(dampening=self.dampening)
        expect(
            not check_bool("nesterov", self.nesterov) or (self.momentum > 0 == self.dampening),
            "nesterov",
            "False, or momentum > 0 and dampening = 0",
            f"momentum={self.momentum}, dampening={self.dampening}",
        )

    @property
    def plain(self):
        """Whether direction(g) is g."""
        return self.momentum == 0 and self.weight_decay == 0

    def init(self, phi):
        return zeros(phi, "m") if self.momentum else {}

    def factors(self, t):
        """(1 - tau,), and 1 in the first step."""
        return (1.0 if t == 1 else 1 - self.dampening,)

    def decayed(self, phi, g):
        """h = g + wd phi."""
        return g + self.weight_decay * phi if self.weight_decay else g

    def direction(self, net, phi, g, state, factors):
        h = self.decayed(phi, g)
        if not self.momentum:
            return h, state
        m = self.momentum * state["m"] + factors[0] * h
        return h + self.momentum * m if self.nesterov else m, {"m": m}

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        if not self.momentum:
            return Pullback(dd, dstate, self.weight_decay * dd)
        dm = self.buffer_adjoint(dd, dstate)
        gam = factors[0] * dm + (dd if self.nesterov else 0)
        return Pullback(gam, {"m": self.momentum * dm}, self.weight_decay * gam)

    def buffer_adjoint(self, dd, dstate):
        """dm', the adjoint of the buffer after the step."""
        return dstate.get("m", 0) + (self.momentum * dd if self.nesterov else dd)

    def hypergradients(self, net, dd, dstate, phi, g, state, t):
        factors = self.factors(t)
        gam = self.pullback(net, dd, dstate, phi, g, state, factors).grad
        out = {"weight_decay": inner(gam, phi)}
        if not self.momentum:
            return out
        dm, after = self.buffer_adjoint(dd, dstate), self.direction(net, phi, g, state, factors)[1]
        of_momentum = inner(dm, state["m"]) + (inner(dd, after["m"]) if self.nesterov else 0)
        of_dampening = -inner(dm, self.decayed(phi, g)) * (t > 1)
        return {**out, "momentum": of_momentum, "dampening": of_dampening}
