"""Variants of the rules of refmaml.update_rules, as mistakes have them."""

from dataclasses import dataclass, field

from refmaml.update_rules import Clip, UpdateRule


@dataclass(frozen=True)
class ExactClip(Clip):
    """Clip by norm as functions in NumPy do it: g min(1, norm / |g|)."""

    norm_eps = 0.0


@dataclass(frozen=True)
class ConstantClip(ExactClip):
    """ExactClip whose factor counts as a constant: it is not differentiated."""

    def gradient_adjoint(self, net, gam, g):
        return self.by_norm(net, g).factor * gam


@dataclass(frozen=True)
class DetachedState(UpdateRule):
    """A rule whose state counts as a constant: no derivative goes from step to step."""

    rule: UpdateRule = field(default_factory=UpdateRule)
    plain = False

    def init(self, phi):
        return self.rule.init(phi)

    def factors(self, t):
        return self.rule.factors(t)

    def direction(self, net, phi, g, state, factors):
        return self.rule.direction(net, phi, g, state, factors)

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        back = self.rule.pullback(net, dd, {}, phi, g, state, factors)
        return back._replace(state={})
