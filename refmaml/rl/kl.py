"""The Kullback-Leibler divergence between the policies at two parameter vectors.

At one state, from the old policy (mu0, l0) to the one at w (mu, l), with m = mu - mu0:

    KL = sum_d ( l - l0 + (s0^2 + m^2) / (2 s^2) - 1/2 ),  s = e^l
    dmu = m / s^2                      dl = 1 - (s0^2 + m^2) / s^2
    rdmu = (rmu - 2 m rl) / s^2        rdl = (2 (s0^2 + m^2) rl - 2 m rmu) / s^2

At w = w0 the Hessian is the Fisher matrix J' s^-2 J on the mean and 2 I on l.
Source: Schulman et al. 2015 (TRPO), appendix C.1.
"""

from typing import NamedTuple

from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.primal import Primal
from refmaml.rl.gaussian_policy import Distributions, GaussianPolicy


class KLPass(NamedTuple):
    """value (T,) and grad (T, P) of the mean KL at w, kept for `hvp`.

    m, ratio   mu - mu0 and (s0^2 + m^2) / s^2, each (T, B, A); inverse: 1 / s^2
    """

    value: Array
    grad: Array
    at: Distributions
    primal: Primal
    m: Array
    ratio: Array
    inverse: Array


class PolicyKL:
    """w -> mean over states of KL(pi(. | s; old) || pi(. | s; w)), for each task.

    policy  a GaussianPolicy
    old     (T or 1, P): the parameters that the states were visited with
    states  (T, ..., S)
    mask    (T, ...) of 0 and 1, or weights >= 0: states that count; None: all do
    Raises ArgumentError for shapes that do not fit, and for a task without a state.
    """

    def __init__(
        self, policy: GaussianPolicy, old: Array, states: Array, mask: Array | None = None
    ) -> None:
        self.policy, self.states = policy, states
        self.old = policy.distributions(old, states)
        axes, xp = self.old.axes, policy.kernels.xp
        mask = xp.ones(axes, old.real.dtype) if mask is None else mask
        expect(mask.shape == axes, "mask", f"shape {axes}", lambda: f"{mask.shape}")
        flat = mask.reshape(axes[0], -1)
        total = flat.sum(axis=1, keepdims=True)
        expect((total > 0).all(), "mask", "at least one state of each task", "a task without")
        self.weights = (flat / total).astype(old.real.dtype)[..., None]

    def parts(self, at: Distributions) -> tuple[Array, Array, Array]:
        """m, (s0^2 + m^2) / s^2 and 1 / s^2."""
        xp, m = self.policy.kernels.xp, at.mu - self.old.mu
        inverse = xp.exp(-2 * at.l)[:, None]
        return m, (xp.exp(2 * self.old.l)[:, None] + m * m) * inverse, inverse

    def total(self, at: Distributions, ratio: Array) -> Array:
        """The value (T,)."""
        terms = (at.l - self.old.l)[:, None] + (ratio - 1) / 2
        return (self.weights * terms).sum(axis=(1, 2))

    def value(self, w: Array) -> Array:
        """The mean KL of each task, (T,), in a pass that keeps nothing."""
        at = self.policy.distributions(w, self.states, keep=False)
        return self.total(at, self.parts(at)[1])

    def primal(self, w: Array) -> KLPass:
        """Value and gradient at w."""
        at = self.policy.distributions(w, self.states)
        m, ratio, inverse = self.parts(at)
        dl = (self.weights * (1 - ratio)).sum(axis=1)
        grad, primal = self.policy.pullback(at, self.weights * m * inverse, dl)
        return KLPass(self.total(at, ratio), grad, at, primal, m, ratio, inverse)

    def gradient(self, w: Array) -> Array:
        """The gradient in w, (T, P)."""
        return self.primal(w).grad

    def hvp(self, here: KLPass, v: Array) -> Array:
        """The Hessian in w times v (T or 1, P), at the w of `primal`: (T, P)."""
        along = self.policy.tangents(here.at, v)
        rl = along.rl[:, None]
        rdmu = self.weights * (along.rmu - 2 * here.m * rl) * here.inverse
        rdl = 2 * (self.weights * (here.ratio * rl - here.m * along.rmu * here.inverse)).sum(axis=1)
        return self.policy.r_pullback(here.primal, along, rdmu, rdl)

    def fisher_product(self, v: Array) -> Array:
        """F v at the old parameters, (T, P): J' s^-2 J v on the mean, 2 v on l.

        It equals `hvp` there and costs no R-pass backward. Source: Amari 1998.
        """
        along, xp = self.policy.tangents(self.old, v), self.policy.kernels.xp
        dmu = self.weights * along.rmu * xp.exp(-2 * self.old.l)[:, None]
        dl = 2 * along.rl * self.weights.sum(axis=1)
        return self.policy.pullback(self.old, dmu, dl)[0]
