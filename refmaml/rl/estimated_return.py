"""An estimator on the trajectories of a policy: value, gradient and products in w."""

from typing import Any, NamedTuple

from refmaml.arguments import check_choice
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.rl.estimators import Estimator, Frozen
from refmaml.rl.gaussian_policy import GaussianPolicy, LogProbs, Weighted
from refmaml.rl.trajectories import Trajectories

OVER = ("trajectories", "steps")


class EstimatePass(NamedTuple):
    """value (T,) and grad (T, P) at w, kept for `hvp`."""

    value: Array
    grad: Array
    here: LogProbs
    saved: Any
    back: Weighted


class EstimatedReturn:
    """w -> an estimator's value on a frozen batch: a deterministic function of w.

    policy     a GaussianPolicy
    estimator  NaiveSurrogate(), LVC(), DiCE() or Score()
    batch      Trajectories with advantages. Where it has log_probs, they are the old
               policy's, and the ratios of LVC and DiCE compare the policy at w with it;
               otherwise every ratio is 1
    over       what the weights q are divided by: "trajectories" N, which makes the
               gradient that of the expected return; or "steps", all valid ones of a
               task, as most programs do
    Value and gradient are to be ascended. `hvp` is the derivative of `gradient` where
    batch has log_probs, or for a NaiveSurrogate.
    Raises ArgumentError for other arguments.
    """

    def __init__(
        self, policy: GaussianPolicy, estimator: Estimator, batch: Trajectories,
        over: str = "trajectories",
    ) -> None:  # fmt: skip
        check_choice("over", over, OVER)
        ok = isinstance(estimator, Estimator)
        expect(ok, "estimator", "an estimator, such as DiCE()", lambda: repr(estimator))
        ok = isinstance(batch, Trajectories) and batch.advantages is not None
        expect(ok, "batch", "Trajectories with advantages", lambda: type(batch).__name__)
        self.policy, self.estimator, self.batch = policy, estimator, batch
        mask = batch.valid
        kind = batch.rewards.dtype
        count = batch.num_steps if over == "steps" else 0 * batch.num_steps + batch.axes[1]
        q = batch.advantages * mask / count.astype(kind)[:, None, None]
        self.frozen = Frozen(q, mask, batch.log_probs)

    def value(self, w: Array) -> Array:
        """The value of each task, (T,), in a pass that keeps nothing."""
        here = self.policy.forward(w, self.batch.states, self.batch.actions, keep=False)
        return self.estimator.forward(self.policy.kernels, here.log_probs, self.frozen)[0]

    def primal(self, w: Array) -> EstimatePass:
        """Value and gradient at w (T or 1, P)."""
        k = self.policy.kernels
        here = self.policy.forward(w, self.batch.states, self.batch.actions)
        value, saved = self.estimator.forward(k, here.log_probs, self.frozen)
        back = self.policy.backward(here, self.estimator.backward(k, saved))
        return EstimatePass(value, back.grad, here, saved, back)

    def gradient(self, w: Array) -> Array:
        """The gradient in w, (T, P)."""
        return self.primal(w).grad

    def hvp(self, primal: EstimatePass, v: Array) -> Array:
        """The Hessian in w times v (T or 1, P), at the w of `primal`: (T, P)."""
        along = self.policy.r_forward(primal.here, v)
        rdl = self.estimator.r_backward(self.policy.kernels, primal.saved, along.log_probs)
        return self.policy.r_backward(primal.back, along, rdl)
