"""The sign of the gradient as the direction of a step."""

from dataclasses import dataclass

from refmaml.update_rules.rule import Pullback, UpdateRule


@dataclass(frozen=True)
class Sign(UpdateRule):
    """d = sign(g), entry by entry; sign(0) = 0.

    d is constant in g but where an entry of g changes its sign. So the adjoint is gam =
    0: no Hessian-vector product enters, dphi_K/dtheta is I, and the meta-gradient of
    MAML with this rule, which is exact, is that of first-order MAML. Where a sign
    changes, M jumps, and no derivative knows the jump.
    Source: Fan, Ram, Liu 2021 (Sign-MAML), section 3.
    """

    def direction(self, net, phi, g, state, factors):
        return net.kernels.xp.sign(g.real), state

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return Pullback(0 * dd, dstate)
