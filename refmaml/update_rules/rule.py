"""What an update rule is. Plain gradient descent is the rule without state.

    d_k, s_{k+1} = rule.direction(phi_k, g_k, s_k)          s_1 = 0
    phi_{k+1}    = phi_k - A_k * d_k                        A_k: the step sizes

g_k is the gradient of the inner loss at phi_k, s_k the rule's state: momentum, moments.
A rule does not know the step sizes. The adjoint carries lam, the adjoint of phi, and
sig, that of s, backwards. With dd = -A_k * lam_{k+1}, the adjoint of d_k,

    gam, sig_k, dphi = rule.pullback(dd, sig_{k+1})         the rule's own derivatives
    lam_k = lam_{k+1} + dphi + H_f(phi_k) gam

Every rule costs one Hessian-vector product a step, whatever its state.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from refmaml.layers.layer import Array

State = dict[str, Array]  # by name, arrays (T or 1, P)


class Pullback(NamedTuple):
    """The adjoints of the arguments of `direction`.

    grad   gam (T, P), that of the gradient g
    state  {name: (T, P)}, those of the state before the step
    phi    (T, P), that of phi, which weight decay reads; 0 where no rule reads phi
    """

    grad: Array
    state: State
    phi: Any = 0


@dataclass(frozen=True)
class UpdateRule:
    """phi' = phi - A g: plain gradient descent, and the base of all rules.

    Vectors are rows of flat parameters: phi, g, d (T or 1, P). `net` gives the kernels,
    the named parts of the vector (`blocks`), and `require`.
    t = 1, 2, ... is the number of the step; it enters by `factors` alone.
    """

    @property
    def plain(self) -> bool:
        """Whether direction(g) is g: no rule of its own overrides it."""
        return type(self).direction is UpdateRule.direction

    def init(self, phi: Array) -> State:
        """The state before the first step: zeros."""
        return {}

    def factors(self, t: int) -> tuple:
        """The numbers that change from step to step."""
        return ()

    def direction(
        self, net: Any, phi: Array, g: Array, state: State, factors: tuple
    ) -> tuple[Array, State]:
        """d, and the state after the step."""
        return g, state

    def pullback(
        self, net: Any, dd: Array, dstate: State, phi: Array, g: Array, state: State,
        factors: tuple,
    ) -> Pullback:  # fmt: skip
        """The adjoints of g, state and phi from those of d and of the state after.

        dstate  {} after the last step, where nothing reads the state
        """
        return Pullback(dd, dstate)

    def hypergradients(
        self, net: Any, dd: Array, dstate: State, phi: Array, g: Array, state: State, t: int
    ) -> dict[str, Array]:
        """{field: (T,) or (T, n)}: what step t adds to dM_t/d(field of the rule)."""
        return {}
