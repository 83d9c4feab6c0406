"""Clipping of the gradient in front of another rule: by its norm, or entry by entry."""

from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from refmaml.arguments import check_bool, is_number
from refmaml.errors import NotDifferentiableError, expect
from refmaml.layers.layer import Array
from refmaml.update_rules.common import inner
from refmaml.update_rules.rule import UpdateRule

NORM_EPS = 1e-6  # PyTorch adds it to the norm


class Clipped(NamedTuple):
    """What clipping by norm computed: factor, norm and whether it clips, each (T, 1),
    or (T, P) with the number of its array at each entry of the array.
    """

    factor: Array
    norm: Array
    clips: Array


@dataclass(frozen=True)
class Clip(UpdateRule):
    """rule on the clipped gradient: g min(1, norm / (|g| + 1e-6)), or every entry of g
    moved into [-value, value].

    rule        the rule that takes the clipped gradient
    norm        the limit of |g|, over all parameters that adapt; or
    value       the limit of each entry: one of the two is given
    per_tensor  clip each named array by its own norm
    As torch.nn.utils.clip_grad_norm_ and clip_grad_value_, then the rule; weight decay
    of the rule is added after clipping, as there.
    Raises ArgumentError unless one positive limit is given, and NotDifferentiableError
    where a norm or an entry is at its limit exactly: its derivatives from both sides
    differ there.
    Source: Pascanu, Mikolov, Bengio 2013, Algorithm 1, in PyTorch's form.

    The adjoint by norm, where it clips, with n = |g|, s = norm / (n + 1e-6):

        gam <- s (gam - g <g, gam> / (n (n + 1e-6)))
        dM/dnorm += <gam, g> / (n + 1e-6)

    By value: gam <- gam where |g| < value, else 0; dM/dvalue += <gam, sign g> there.
    """

    rule: UpdateRule = field(default_factory=UpdateRule)
    norm: float | None = None
    value: float | None = None
    per_tensor: bool = False
    norm_eps = NORM_EPS

    def __post_init__(self) -> None:
        known = isinstance(self.rule, UpdateRule)
        expect(known, "rule", "an update rule, such as rm.SGD()", lambda: repr(self.rule))
        given = [name for name in ("norm", "value") if getattr(self, name) is not None]
        expect(len(given) == 1, "norm", "one of norm= and value=", f"{len(given)} of them")
        limit = getattr(self, given[0])
        expect(is_number(limit) and limit > 0, given[0], "a finite number > 0", repr(limit))
        by_value = check_bool("per_tensor", self.per_tensor) and self.norm is None
        expect(not by_value, "per_tensor", "False beside value=", "True")

    def init(self, phi):
        return self.rule.init(phi)

    def factors(self, t):
        """Those of the rule."""
        return self.rule.factors(t)

    # ---- the clipped gradient and its adjoint ----------------------------------------

    def row_sums(self, net, a):
        """Sums of a (T, P): over each task (T, 1), or over each named array (T, P)."""
        if not self.per_tensor:
            return a.sum(axis=1, keepdims=True)
        xp = net.kernels.xp
        sums = [(a[:, part].sum(axis=1, keepdims=True), part) for part in net.blocks]
        rows = [xp.broadcast_to(s, (len(a), part.stop - part.start)) for s, part in sums]
        return xp.concatenate(rows, axis=1)

    def by_norm(self, net, g):
        """The Clipped of g."""
        xp = net.kernels.xp
        norm = xp.sqrt(self.row_sums(net, g * g))
        limit = self.norm / (norm + self.norm_eps)
        clips = limit.real < 1
        net.require(~(limit.real == 1).any(), refuse_limit)
        return Clipped(xp.where(clips, limit, 1), norm, clips)

    def outside(self, net, g):
        """Where an entry of g is outside [-value, value]."""
        size = net.kernels.xp.abs(g.real)
        net.require(~(size == self.value).any(), refuse_limit)
        return size > self.value

    def limits(self, net, g):
        """value with the sign of g."""
        return net.kernels.xp.sign(g.real) * self.value

    def clipped(self, net, g):
        """The gradient that the rule takes."""
        if self.norm is not None:
            return self.by_norm(net, g).factor * g
        return net.kernels.xp.where(self.outside(net, g), self.limits(net, g), g)

    def gradient_adjoint(self, net, gam, g):
        """The adjoint of g from that of the clipped gradient."""
        xp = net.kernels.xp
        if self.norm is None:
            return xp.where(self.outside(net, g), 0, gam)
        factor, norm, clips = self.by_norm(net, g)
        square = xp.where(norm.real > 0, norm * (norm + self.norm_eps), 1)
        radial = xp.where(clips, self.row_sums(net, g * gam) / square, 0)
        return factor * (gam - radial * g)

    # ---- the rule --------------------------------------------------------------------

    def direction(self, net, phi, g, state, factors):
        return self.rule.direction(net, phi, self.clipped(net, g), state, factors)

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        clipped = self.clipped(net, g)
        back = self.rule.pullback(net, dd, dstate, phi, clipped, state, factors)
        return back._replace(grad=self.gradient_adjoint(net, back.grad, g))

    def hypergradients(self, net, dd, dstate, phi, g, state, t):
        xp, clipped = net.kernels.xp, self.clipped(net, g)
        arguments = net, dd, dstate, phi, clipped, state
        gam = self.rule.pullback(*arguments, self.rule.factors(t)).grad
        if self.norm is not None:
            _, norm, clips = self.by_norm(net, g)
            own = inner(xp.where(clips, gam / (norm + self.norm_eps), 0), g)
        else:
            own = inner(xp.where(self.outside(net, g), gam, 0), xp.sign(g.real))
        name = "norm" if self.norm is not None else "value"
        others = self.rule.hypergradients(*arguments, t)
        renamed = {f"rule.{n}" if n.rpartition(".")[2] == name else n: a for n, a in others.items()}
        return {name: own, **renamed}


def refuse_limit() -> NoReturn:
    """Raise NotDifferentiableError: a gradient at its limit."""
    raise NotDifferentiableError(
        "Clip: expected gradients off their limit, got one exactly at it, where the "
        "derivatives from both sides differ (another limit helps)"
    )
