"""Variants of the rules of refmaml.update_rules, as mistakes have them."""

from dataclasses import dataclass, field, replace

from refmaml.update_rules import SGD, Adagrad, Adam, AdamW, Clip, RMSprop, Sign, UpdateRule
from refmaml.update_rules.rule import Pullback

# ---- clipping ------------------------------------------------------------------------


@dataclass(frozen=True)
class ExactClip(Clip):
    """Clip by norm as functions in NumPy and optax do it: g min(1, norm / |g|)."""

    norm_eps = 0.0


class ConstantFactor:
    """Clipping whose factor counts as a constant: it is not differentiated."""

    def gradient_adjoint(self, net, gam, g):
        """The adjoint of g from that of the clipped gradient."""
        return self.by_norm(net, g).factor * gam


@dataclass(frozen=True)
class ConstantClip(ConstantFactor, ExactClip):
    """ExactClip with a ConstantFactor."""


@dataclass(frozen=True)
class ConstantTorchClip(ConstantFactor, Clip):
    """Clip with a ConstantFactor."""


@dataclass(frozen=True)
class PassedClip(Clip):
    """Clip by value whose derivative is 1 everywhere, as if nothing were clipped."""

    def gradient_adjoint(self, net, gam, g):
        return gam


@dataclass(frozen=True)
class PassedSign(Sign):
    """Sign whose derivative is 1, as if the gradient itself were the direction."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return Pullback(dd, dstate)


# ---- the state or the root as a constant ---------------------------------------------


@dataclass(frozen=True)
class Wrapped(UpdateRule):
    """A rule around another one; it changes nothing itself."""

    rule: UpdateRule = field(default_factory=UpdateRule)
    plain = False

    def init(self, phi):
        return self.rule.init(phi)

    def factors(self, t):
        return self.rule.factors(t)

    def direction(self, net, phi, g, state, factors):
        return self.rule.direction(net, phi, g, state, factors)

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return self.rule.pullback(net, dd, dstate, phi, g, state, factors)


@dataclass(frozen=True)
class DetachedState(Wrapped):
    """A rule whose state counts as a constant: no derivative goes from step to step."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        back = self.rule.pullback(net, dd, {}, phi, g, state, factors)
        return back._replace(state={})


class AdamConstantRoot:
    """Adam whose denominator counts as a constant: the second moment is detached."""

    def moment_adjoints(self, net, a, dd, dstate, factors):
        """The MomentAdjoints of a step, without those of the second moment."""
        back = super().moment_adjoints(net, a, dd, dstate, factors)
        return back._replace(om=0 * back.om, u=0 * back.u)


@dataclass(frozen=True)
class ConstantRootAdam(AdamConstantRoot, Adam):
    """Adam with a denominator that is not differentiated."""


@dataclass(frozen=True)
class ConstantRootAdamW(AdamConstantRoot, AdamW):
    """AdamW with a denominator that is not differentiated."""


@dataclass(frozen=True)
class ConstantRootRMSprop(RMSprop):
    """RMSprop with a denominator that is not differentiated."""

    def average_adjoints(self, net, s, dd, dstate):
        back = super().average_adjoints(net, s, dd, dstate)
        return back._replace(v=0 * back.v, a=0 * back.v, u=0 * back.u)


@dataclass(frozen=True)
class ConstantRootAdagrad(Adagrad):
    """Adagrad with a denominator that is not differentiated."""

    def adjoints(self, net, dd, dstate, phi, g, state, factors):
        gam, dv, dD, du = super().adjoints(net, dd, dstate, phi, g, state, factors)
        h = self.sums(net, phi, g, state)[0]
        return gam - 2 * h * dv, 0 * dv, dD, 0 * du


CONSTANT_ROOT = {
    Adam: ConstantRootAdam,
    AdamW: ConstantRootAdamW,
    RMSprop: ConstantRootRMSprop,
    Adagrad: ConstantRootAdagrad,
}

# ---- formulas ------------------------------------------------------------------------


@dataclass(frozen=True)
class Uncorrected(Wrapped):
    """Adam without its bias correction: the factors of every step are 1."""

    def factors(self, t):
        return tuple(1.0 for _ in self.rule.factors(t))


@dataclass(frozen=True)
class LateCorrection(Wrapped):
    """Adam whose bias correction counts one step too many: 1 - b^(t + 1)."""

    def factors(self, t):
        return self.rule.factors(t + 1)


class EarlyRoot:
    """sqrt((v' + eps_root) / c2) + eps: eps_root is added before the bias
    correction.
    """

    def moments(self, net, phi, g, state, factors):
        """The Moments of a step."""
        right = next(cls for cls in (AdamW, Adam) if isinstance(self, cls))
        numbers = {**vars(self), "eps_root": self.eps_root / factors[1]}
        return right(**numbers).moments(net, phi, g, state, factors)


@dataclass(frozen=True)
class EarlyRootAdam(EarlyRoot, Adam):
    """Adam with an EarlyRoot."""


@dataclass(frozen=True)
class EarlyRootAdamW(EarlyRoot, AdamW):
    """AdamW with an EarlyRoot."""


@dataclass(frozen=True)
class ConstantEarlyRootAdam(AdamConstantRoot, EarlyRootAdam):
    """EarlyRootAdam with a denominator that is not differentiated."""


@dataclass(frozen=True)
class ConstantEarlyRootAdamW(AdamConstantRoot, EarlyRootAdamW):
    """EarlyRootAdamW with a denominator that is not differentiated."""


CONSTANT_ROOT |= {EarlyRootAdam: ConstantEarlyRootAdam, EarlyRootAdamW: ConstantEarlyRootAdamW}


def name_of(rule):
    """The name of a rule's class in refmaml.update_rules, from which it derives."""
    known = (SGD, Adam, AdamW, RMSprop, Adagrad, Clip, Sign)
    return next((c.__name__ for c in type(rule).__mro__ if c in known), type(rule).__name__)


@dataclass(frozen=True)
class EarlyEps(Wrapped):
    """(sqrt(v') + eps) / sqrt(c2): eps is added before the bias correction."""

    def of_step(self, factors):
        """Adam with the eps of a step whose factors are (c1, c2)."""
        return replace(self.rule, eps=self.rule.eps / factors[1] ** 0.5)

    def direction(self, net, phi, g, state, factors):
        return self.of_step(factors).direction(net, phi, g, state, factors)

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return self.of_step(factors).pullback(net, dd, dstate, phi, g, state, factors)


@dataclass(frozen=True)
class Averaged(SGD):
    """SGD with m' = mu m + (1 - tau) h in the first step too: an average from m = 0."""

    def factors(self, t):
        return (1 - self.dampening,)


@dataclass(frozen=True)
class DecayAfter(Wrapped):
    """d + decay phi: weight decay beside the rule, in no moment and not clipped."""

    decay: float = 0.0

    def direction(self, net, phi, g, state, factors):
        d, state = self.rule.direction(net, phi, g, state, factors)
        return d + self.decay * phi, state

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        back = self.rule.pullback(net, dd, dstate, phi, g, state, factors)
        return back._replace(phi=back.phi + self.decay * dd)


@dataclass(frozen=True)
class DecayBefore(Wrapped):
    """The rule on g + decay phi: weight decay in the gradient that is clipped."""

    decay: float = 0.0

    def direction(self, net, phi, g, state, factors):
        return self.rule.direction(net, phi, g + self.decay * phi, state, factors)

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        arguments = net, dd, dstate, phi, g + self.decay * phi, state, factors
        back = self.rule.pullback(*arguments)
        return back._replace(phi=back.phi + self.decay * back.grad)
