"""One meta-step of a policy: batches of trajectories, the meta-gradient, TRPO's step.

    phi_0 = theta,  phi_{k+1} = phi_k + alpha g_k       for each task; g_k the policy
                                                        gradient on its batch k
    grad M = mean over tasks of B' g(phi_K),  F = mean over tasks of B' F(phi_K) B
    B = (I + alpha H_{K-1}) ... (I + alpha H_0),  H_k the estimator's Hessian

F(phi_K) is the Fisher matrix of the adapted policy; F is exact at theta, as the
gradient of the KL divergence is 0 there. `maml` uses B, `fomaml` the identity, and
`erm` has no inner step: it trains one policy on all tasks. `reptile` moves theta to the
mean of phi_K, without a line search.

Products F v use a quarter of each batch's trajectories: whole ones, so that sums along
a trajectory stay sums.
"""

from dataclasses import dataclass, field
from time import process_time
from typing import Any

import numpy as np

from refmaml.errors import ArgumentError, NonFiniteError
from refmaml.rl import EstimatedReturn, LinearBaseline, PolicyKL, gaussian_density
from refmaml.rl.meta_gradient import AdaptedPolicy
from refmaml.rl.meta_gradient import Step as InnerStep
from refmaml.rl.trust_region import Measured, TrustRegion
from refmaml.tasks import navigation
from refmaml.training.meta_step import Step

METHODS = ("maml", "fomaml", "erm", "reptile")
CHUNK = 5  # tasks at a time: their activations stay in a processor's caches
SHARE = 4  # one of so many trajectories is in the products F v


@dataclass(frozen=True)
class PolicyMethod:
    """What a meta-step does with its tasks.

    name       one of METHODS
    estimator  of refmaml.rl: whose Hessian is in B
    inner_lr   alpha; inner_steps: K
    gamma      the discount of returns
    outer_lr   reptile: the fraction of the way to the mean of phi_K
    """

    name: str
    estimator: Any
    inner_lr: float = 0.5
    inner_steps: int = 1
    gamma: float = 0.99
    outer_lr: float = 1.0
    region: TrustRegion = field(default_factory=TrustRegion)
    baseline: LinearBaseline = field(default_factory=LinearBaseline)

    @property
    def batches(self):
        """How many batches of trajectories a meta-step takes of each task."""
        return 1 + (0 if self.name == "erm" else self.inner_steps)

    def init(self, policy, theta):
        """The meta-parameters: theta itself."""
        return theta.copy()

    def collect(self, policy, phi, goals, noise):
        """Trajectories of the policy at phi (T or 1, P), with advantages.

        Those are returns to go less the linear baseline, whitened for each task.
        Raises NonFiniteError where the policy overflows.
        """
        with np.errstate(all="ignore"):  # the check of trajectories finds an overflow
            sigma = np.exp(policy.log_sigma(phi))
            try:
                batch = navigation.walk(lambda s: policy.mean(phi, s), sigma, goals, noise)
            except ArgumentError as error:
                reason = f"trajectories of a policy: {error} (a smaller inner_lr may help)"
                raise NonFiniteError(reason) from None
        returns = batch.returns_to_go(self.gamma)
        advantages = batch.whitened(returns - self.baseline.values(batch, returns))
        return batch.with_advantages(advantages)

    def objective(self, policy, batch):
        """The estimator on a batch: a mean over all steps of a task."""
        return EstimatedReturn(policy, self.estimator, batch, over="steps")


def policy_step(recipe, now):
    """The Step after `now`: recipe.net is the policy, recipe.method a PolicyMethod.

    Step.loss is minus the mean return after adaptation.
    """
    started, method, theta = process_time(), recipe.method, now.meta
    draws = recipe.sample(now.step)
    T = len(draws.goals)
    parts = [draws.tasks(slice(i, i + CHUNK)) for i in range(0, T, CHUNK)]
    blocks = [Block(method, recipe.net, theta, part) for part in parts]

    def mean(values):
        return sum(values) / T

    gradient = mean(block.gradient for block in blocks)
    figures = {"kl": np.nan}
    if method.name == "reptile":
        after = theta + theta.dtype.type(method.outer_lr) * gradient
    else:
        step = method.region.step(-gradient, lambda v: mean(b.product(v) for b in blocks))
        before = mean(block.loss for block in blocks)

        def measure(point):
            return Measured(*mean(block.measure(point) for block in blocks))

        with np.errstate(all="ignore"):  # NaN is neither lower nor within the region
            found = method.region.search(theta, step, before, measure)
        after, figures["kl"] = found.theta, float(found.at.kl)
    figures |= {
        "return_before": float(mean(block.returns[0] for block in blocks)),
        "sigma": float(np.exp(recipe.net.log_sigma(after[None])).mean()),
        "processor_seconds": process_time() - started,
    }
    loss = -float(mean(block.returns[1] for block in blocks))
    return Step(after, {}, loss, None, float(np.linalg.norm(gradient)), figures)


class Block:
    """Some tasks of a meta-step: their batches, and the passes that products need.

    gradient  the sum over its tasks (P,), to be ascended; reptile: of phi_K - theta
    returns   before and after adaptation; loss: of the outer batch; sums over tasks
    """

    def __init__(self, method, policy, theta, draws):
        self.method, self.policy, self.inner = method, policy, []
        phis, steps, rate = [theta[None]], [], theta.dtype.type(method.inner_lr)
        for noise in draws.noise[:-1]:
            batch = method.collect(policy, phis[-1], draws.goals, noise)
            objective = method.objective(policy, batch)
            steps.append(InnerStep(rate, objective, objective.primal(phis[-1])))
            phis.append(phis[-1] + rate * steps[-1].primal.grad)
            self.inner.append(batch)
        self.phi = phis[-1]
        self.outer = method.collect(policy, self.phi, draws.goals, draws.noise[-1])
        first = self.inner[0] if self.inner else self.outer
        self.returns = [batch.returns().mean(axis=1).sum() for batch in (first, self.outer)]
        if method.name == "reptile":
            self.gradient = (self.phi - theta).sum(axis=0)
            return
        lam = method.objective(policy, self.outer).gradient(self.phi)
        self.gradient = self.chain(phis, steps).pull(lam).sum(axis=0)
        self.loss = -surrogate(self.outer, 1).sum()
        self.prepare(phis)

    def chain(self, phis, steps):
        """The AdaptedPolicy whose `push` and `pull` are B v and B' u."""
        return AdaptedPolicy(phis, steps if self.method.name == "maml" else [])

    def prepare(self, phis):
        """Keep the passes of products on a share of the trajectories."""
        few, steps = slice(0, max(1, self.outer.axes[1] // SHARE)), []
        if self.method.name == "maml":
            rate = self.phi.dtype.type(self.method.inner_lr)
            for phi, batch in zip(phis, self.inner, strict=False):
                objective = self.method.objective(self.policy, batch.episodes(few))
                steps.append(InnerStep(rate, objective, objective.primal(phi)))
        self.few = self.chain(phis, steps)
        batch = self.outer.episodes(few)
        self.kl = PolicyKL(self.policy, self.phi, batch.states, batch.mask)

    def product(self, v):
        """The sum over tasks of B' F B v, (P,)."""
        along = np.broadcast_to(v, (len(self.outer), len(v)))
        return self.few.pull(self.kl.fisher_product(self.few.push(along))).sum(axis=0)

    def measure(self, point):
        """np.array([loss, KL]) at theta = `point`: the sums over tasks."""
        phi = point[None]
        for batch in self.inner:
            rate = point.dtype.type(self.method.inner_lr)
            phi = phi + rate * self.method.objective(self.policy, batch).gradient(phi)
        batch = self.outer
        here = self.policy.forward(phi, batch.states, batch.actions, keep=False)
        kl = PolicyKL(self.policy, self.phi, batch.states, batch.mask)
        flat = batch.actions.reshape(kl.old.mu.shape)
        old, _ = gaussian_density.forward(np, kl.old.mu, kl.old.l, flat)
        ratio = np.exp(here.log_probs - old.reshape(batch.axes))
        divergence = kl.total(here.at, kl.parts(here.at)[1])
        return np.array([-surrogate(batch, ratio).sum(), divergence.sum()])


def surrogate(batch, ratio):
    """The mean over a task's steps of ratio times advantage, (T,)."""
    return (ratio * batch.advantages * batch.valid).sum(axis=(1, 2)) / batch.num_steps
