"""The meta-gradient of policies that adapt by policy gradients.

    phi_{k+1} = phi_k + alpha_k g(phi_k; D_k),  g the estimator's gradient on batch D_k
    lam_K = grad J(phi_K; D_K)
    lam_k = lam_{k+1} + alpha_k H(phi_k; D_k or D'_k) lam_{k+1}
            [+ J(phi_K) grad Score(phi_k; D_k), with the score term]

lam_0 is the meta-gradient of a task, to be ascended. D_k has the trajectories of the
policy at phi_k. The estimators' Hessians H are symmetric, so no transpose appears.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import check_bool, check_number
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.rl.estimated_return import OVER, EstimatedReturn, EstimatePass
from refmaml.rl.estimators import Estimator, NaiveSurrogate, Score
from refmaml.rl.gaussian_policy import GaussianPolicy
from refmaml.rl.trajectories import Trajectories


class Step(NamedTuple):
    """One inner step: its size, the function whose Hessian counts, and its pass."""

    rate: float
    curvature: EstimatedReturn
    primal: EstimatePass


class AdaptedPolicy(NamedTuple):
    """phis: phi_0 (1 or T, P), phi_1, ... phi_K (T, P); steps: the inner steps.

    B = d phi_K / d phi_0 = (I + alpha H_{K-1}) ... (I + alpha H_0).
    """

    phis: list
    steps: list

    @property
    def phi(self) -> Array:
        """phi_K (T, P)."""
        return self.phis[-1]

    def push(self, v: Array) -> Array:
        """B v, (T, P): the tangent of phi_K along v (T or 1, P)."""
        for step in self.steps:
            v = v + step.rate * step.curvature.hvp(step.primal, v)
        return v

    def pull(self, lam: Array) -> Array:
        """B' lam, (T, P), of an adjoint of phi_K."""
        return self.adjoints(lam)[0]

    def adjoints(self, lam: Array, added: Sequence[Array] | None = None) -> list:
        """lam_0 ... lam_K; added[k] is added to lam_k as soon as it is computed."""
        lams = [lam]
        for k in range(len(self.steps) - 1, -1, -1):
            rate, curvature, primal = self.steps[k]
            lam = lam + rate * curvature.hvp(primal, lam)
            lam = lam if added is None else lam + added[k]
            lams.append(lam)
        return lams[::-1]


class PolicyMetaGradient(NamedTuple):
    """grad (P,): the mean of task_grads (T, P), to be ascended.

    returns   (T,): the mean return of each task's last batch, D_K
    adapted   the AdaptedPolicy
    """

    grad: np.ndarray
    task_grads: np.ndarray
    returns: np.ndarray
    adapted: AdaptedPolicy


@dataclass(frozen=True)
class PolicyMAML:
    """MAML for policies: adaptation by policy gradients, and its meta-gradient.

    inner_lr     alpha: a number, or one for each inner step
    estimator    NaiveSurrogate(), LVC() or DiCE(): whose Hessian is in the chain. Their
                 docstrings say which objective each belongs to. All give the same step
    score_term   True: E-MAML's term J(phi_K) sum_n grad log pi_n is added at each step.
                 NaiveSurrogate() with it is exact for J_I at every N. J is the mean
                 return, or with over="steps" the mean reward of a step
    first_order  True: the Hessians are left out, as in first-order MAML
    over         "trajectories" or "steps": what weights are divided by
    Raises ArgumentError for other settings.
    Sources: Finn, Abbeel, Levine 2017; the adjoint recursion as in refmaml.methods.
    """

    inner_lr: Any = 0.1
    estimator: Estimator = NaiveSurrogate()
    score_term: bool = False
    first_order: bool = False
    over: str = "trajectories"

    def __post_init__(self) -> None:
        rates = self.inner_lr if isinstance(self.inner_lr, tuple | list) else [self.inner_lr]
        for rate in rates:
            check_number("inner_lr", rate)
        known = isinstance(self.estimator, Estimator)
        wanted = "an estimator, such as DiCE()"
        expect(known, "estimator", wanted, lambda: repr(self.estimator))
        expect(self.over in OVER, "over", f"one of {', '.join(OVER)}", lambda: repr(self.over))
        check_bool("score_term", self.score_term)
        check_bool("first_order", self.first_order)

    def rates(self, steps: int) -> list[float]:
        """alpha_k of each inner step."""
        if not isinstance(self.inner_lr, tuple | list):
            return [float(self.inner_lr)] * steps
        given = len(self.inner_lr)
        expect(given == steps, "inner_lr", f"{steps} numbers, one for each batch", f"{given}")
        return [float(rate) for rate in self.inner_lr]

    def adapt(
        self, policy: GaussianPolicy, theta: Array, batches: Sequence[Trajectories],
        second: Sequence[Trajectories] | None = None,
    ) -> AdaptedPolicy:  # fmt: skip
        """phi_0 = theta (P,) to phi_K, with a step on each of K batches.

        second  K other batches of the same policies, for the Hessians alone: they make
                the Hessian independent of the step, which removes DiCE's bias c / N for
                a quadratic J. None: the same batches
        """
        expect(second is None or len(second) == len(batches), "second",
               f"{len(batches)} batches, one for each step", "another number")  # fmt: skip
        ok = getattr(theta, "shape", None) == (policy.num_params,)
        wanted = f"an array of shape ({policy.num_params},)"
        expect(ok, "theta", wanted, lambda: f"{getattr(theta, 'shape', type(theta).__name__)}")
        phis, steps = [theta[None]], []
        for k, (batch, rate) in enumerate(zip(batches, self.rates(len(batches)), strict=True)):
            objective = EstimatedReturn(policy, self.estimator, batch, self.over)
            primal = objective.primal(phis[-1])
            phis.append(phis[-1] + rate * primal.grad)
            if second is not None and not self.first_order:
                objective = EstimatedReturn(policy, self.estimator, second[k], self.over)
                primal = objective.primal(phis[-2])
            steps.append(Step(rate, objective, primal))
        return AdaptedPolicy(phis, steps)

    def meta_gradient(
        self, policy: GaussianPolicy, theta: Array, inner: Sequence[Trajectories],
        outer: Trajectories, second: Sequence[Trajectories] | None = None,
    ) -> PolicyMetaGradient:  # fmt: skip
        """The meta-gradient at theta (P,) on frozen batches; all have advantages.

        inner   K >= 1 batches, D_k drawn by the policies at phi_k
        outer   D_K, drawn by the adapted policies
        second  see `adapt`
        """
        adapted = self.adapt(policy, theta, inner, second)
        lam = EstimatedReturn(policy, self.estimator, outer, self.over).gradient(adapted.phi)
        returns = outer.returns().mean(axis=1)
        steps = outer.num_steps / outer.axes[1] if self.over == "steps" else 1.0
        J = (returns / steps).astype(returns.dtype)
        added = self.score_terms(policy, adapted, inner, J) if self.score_term else None
        if self.first_order:
            grads = lam if added is None else lam + sum(added)
        else:
            grads = adapted.adjoints(lam, added)[0]
        return PolicyMetaGradient(grads.mean(axis=0), grads, returns, adapted)

    def score_terms(
        self, policy: GaussianPolicy, adapted: AdaptedPolicy,
        inner: Sequence[Trajectories], J: Array,
    ) -> list[Array]:  # fmt: skip
        """J(phi_K) sum_n grad log pi_n at each phi_k, (T, P) each."""
        scores = [EstimatedReturn(policy, Score(), batch) for batch in inner]
        gradients = [s.gradient(phi) for s, phi in zip(scores, adapted.phis, strict=False)]
        return [J[:, None] * gradient for gradient in gradients]
