"""Estimators of policies' meta-gradients, on three problems with exact truths.

The estimators are those of refmaml.rl. Their means are integrals over the noise of a
batch: each node of a quadrature is one batch, a task of its own, so that the means are
exact too. An estimator that is off by construction gets a row that it must fail.
"""

from itertools import product

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import MSE, Linear, Tanh
from refmaml.oracles import complex_step, rl_bandit, rl_linear_quadratic, rl_navigation
from refmaml.oracles.rl_bandit import Bandit
from refmaml.oracles.rl_linear_quadratic import Line
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.rl import (
    LVC,
    DiCE,
    EstimatedReturn,
    GaussianPolicy,
    NaiveSurrogate,
    PolicyMAML,
    Trajectories,
)

PLACE = np.array([0.1, -0.2, np.log(0.4)])  # b, K, log sigma of the line
RATE = 0.1  # alpha on the line
ESTIMATORS = (("naive", NaiveSurrogate()), ("LVC", LVC()), ("DiCE", DiCE()))


def row(subject, quantity, oracle, value, truth, terms, cancelled=1.0):
    """A Check of a mean over a quadrature of `terms` nodes.

    cancelled  how many times larger the terms are than their mean, if much larger
    """
    error = relative_error(value, truth)
    limit = cancelled * tolerance(float, terms)
    return Check("5 closed form", subject, quantity, oracle, error, limit)


def must_differ(subject, quantity, oracle, value, truth, terms, cancelled=1.0):
    """A row that passes if the value is off by a thousand times the tolerance."""
    check = row(subject, quantity, oracle, value, truth, terms, cancelled)
    used = check.tolerance / check.error if check.error else np.inf
    return Check("4 planted error", subject, quantity, "must be refused", used, 1e-3)


# ---- the bandit ----------------------------------------------------------------------


def bandit_policy(bandit):
    """a ~ N(theta, s^2): a net of one weight on the state 1, and a fixed sigma."""
    net = Sequential([Linear(1, 1, bias=False)], MSE(), (1,))
    return GaussianPolicy(net, float(np.log(bandit.sigma)), learn_sigma=False)


def bandit_batches(bandit, N, baseline):
    """(Trajectories, weight of each task): every batch of N nodes is a task."""
    x, w = rl_bandit.hermite()
    e, weight = rl_bandit.grid(x, N), rl_bandit.grid(w, N).prod(axis=1)
    a = (bandit.theta + bandit.sigma * e)[:, :, None, None]
    rewards = bandit.reward(a[..., 0])
    return Trajectories(np.ones_like(a), a, rewards).with_advantages(rewards - baseline), weight


def bandit_mean(bandit, N, estimator, score, baseline=0.0):
    """The mean meta-gradient of PolicyMAML, with the exact J and J' at phi_hat."""
    policy, (batch, weight) = bandit_policy(bandit), bandit_batches(bandit, N, baseline)
    maml = PolicyMAML(bandit.alpha, estimator)
    adapted = maml.adapt(policy, np.array([bandit.theta]), [batch])
    added = None
    if score:
        added = maml.score_terms(policy, adapted, [batch], bandit.value(adapted.phi)[:, 0])
    return weight @ adapted.adjoints(bandit.slope(adapted.phi), added)[0][:, 0]


def bandit_checks():
    """J_I and J_II in closed form, and each estimator's mean, for 1 to 3 samples."""
    bandit = Bandit()
    exact = bandit.value(bandit.theta)
    for N in (1, 2, 3):
        truth = rl_bandit.gradient_of_samples(bandit, N)
        for title, baseline in (("", 0.0), (", exact baseline", exact)):
            subject = f"bandit, N = {N}{title}"
            means = rl_bandit.moments(bandit, N, baseline)
            other = rl_bandit.direct(bandit, N, baseline)
            nodes = len(rl_bandit.trapezoid()[0]) ** N
            yield row(subject, "means", "other quadrature", list(other.values()),
                      list(means.values()), nodes)  # fmt: skip
            for (name, estimator), score in product(ESTIMATORS, (False, True)):
                same = "naive" if name == "naive" else "DiCE"  # with one step LVC is DiCE
                title = " + score" * score
                value = bandit_mean(bandit, N, estimator, score, baseline)
                yield row(subject, name + title, "quadrature", value, means[same + title], 14**N)
        means = rl_bandit.moments(bandit, N)
        subject = f"bandit, N = {N}"
        yield row(subject, "naive + score", "J_I'", means["naive + score"], truth, 14)
        yield must_differ(subject, "naive", "J_I'", means["naive"], truth, 14)
    value = rl_bandit.moments(bandit, np.inf)["DiCE"]
    truth = rl_bandit.gradient_of_infinite(bandit)
    yield row("bandit, N infinite", "DiCE", "J_II'", value, truth, 14)


# ---- linear-quadratic navigation -----------------------------------------------------


def line_policy():
    """a ~ N(b + K s, sigma^2): its flat parameters are K, b, log sigma."""
    return GaussianPolicy(Sequential([Linear(1, 1)], MSE(), (1,)))


def line_hessian(line, p, estimator, baseline):
    """The mean Hessian (3, 3) of EstimatedReturn in the order of p = (b, K, l)."""
    at, policy, order = rl_linear_quadratic.paths(line, p), line_policy(), [1, 0, 2]
    batch = Trajectories(*(a[:, None, :, None] for a in (at.states, at.actions)),
                         at.rewards[:, None])  # fmt: skip
    advantages = batch.returns_to_go()
    if baseline:
        values = [
            rl_linear_quadratic.value_to_go(line, p, t, at.states[:, t])
            for t in range(line.horizon)
        ]
        advantages = advantages - np.stack(values, axis=1)[:, None]
    objective = EstimatedReturn(policy, estimator, batch.with_advantages(advantages))
    primal = objective.primal(p[order][None])
    columns = [at.weight @ objective.hvp(primal, v[order][None]) for v in np.eye(3)]
    return np.stack(columns, axis=1)[order]


def line_checks(p=PLACE):
    """The Hessian of J for 1 to 3 steps: exact, or off, as the theory says."""
    for T in (1, 2, 3):
        line, terms = Line(T), T * rl_linear_quadratic.NODES**T
        exact, subject = rl_linear_quadratic.objective(line, p), f"line, {T} steps"
        gradient, found = rl_linear_quadratic.hessians(line, p)
        yield row(subject, "grad J", "moments", gradient, exact.first, terms)
        for name, estimator in ESTIMATORS:
            for title, baseline in (("", False), (" + baseline", True)):
                value = line_hessian(line, p, estimator, baseline)
                if name + title in found:
                    known = found[name + title]
                    yield row(subject, f"{name}{title}", "quadrature", value, known, terms)
                right = name == "DiCE" or (name == "LVC" and T == 1)
                compare = row if right else must_differ
                yield compare(subject, f"{name}{title}, H", "moments", value, exact.second, terms)


# ---- smooth navigation ---------------------------------------------------------------


def field_policy(field):
    """The policy whose flat parameters are those of the oracle."""
    layers = [Linear(2, field.hidden), Tanh(), Linear(field.hidden, 2)]
    return GaussianPolicy(Sequential(layers, MSE(), (2,)))


def field_product(field, p, v, estimator, noise, weight):
    """(the mean gradient (P,), the mean Hessian times v (P,)) of EstimatedReturn."""
    batch = rl_navigation.trajectories(field, p, noise)
    scaled = batch.returns_to_go() * (weight * len(weight))[None, :, None]
    objective = EstimatedReturn(field_policy(field), estimator, batch.with_advantages(scaled))
    primal = objective.primal(p[None])
    return primal.grad[0], objective.hvp(primal, v[None])[0]


def field_checks():
    """One step: score functions against the derivative through the dynamics."""
    field = rl_navigation.Field(hidden=4)
    p, (noise, weight) = field.start(), rl_navigation.plane()
    v = np.random.default_rng(1).standard_normal(field.size)
    gradient = rl_navigation.gradient(field, p, noise, weight)
    curved = rl_navigation.hessian_product(field, p, v, noise, weight)
    # A term of H v is about r |v| / sigma^2; rewards are about -|goal|.
    size = np.linalg.norm(field.goal) * np.linalg.norm(v) / np.exp(2 * p[-1])
    cancelled = size / np.abs(curved).max()
    for name, estimator in ESTIMATORS:
        first, second = field_product(field, p, v, estimator, noise, weight)
        subject, terms = "smooth navigation, 1 step", len(weight)
        yield row(subject, f"{name}, grad J", "pathwise", first, gradient, terms)
        compare = must_differ if name == "naive" else row
        yield compare(subject, f"{name}, H v", "pathwise", second, curved, terms, cancelled)
    yield from dynamics_checks(field, p, v)


def dynamics_checks(field, p, v):
    """The derivative through five steps, against the complex step on the return."""
    noise = np.random.default_rng(0).standard_normal((7, 5, 2))
    weight = np.full(7, 1 / 7)
    value = v @ rl_navigation.gradient(field, p, noise, weight)
    truth = complex_step.directional(
        lambda q: np.asarray(rl_navigation.value(field, q, noise, weight)), p, v
    )
    yield row("smooth navigation, 5 steps", "pathwise gradient", "complex step", value, truth, 70)


def policy_checks():
    """All of them."""
    yield from bandit_checks()
    yield from line_checks()
    yield from field_checks()
