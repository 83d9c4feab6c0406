"""How far each estimator of a policy's meta-gradient is from the truth.

    python benchmarks/policy_estimators.py --out benchmarks/policy_estimators.json

Four parts, each against an exact truth of refmaml/oracles:
    bandit   means by quadrature, for 1, 2, 3 and infinitely many samples
    bias     DiCE on one batch, and with independent batches, by Monte Carlo: the mean
             of REPEATS meta-gradients with its 95 % interval, beside the exact mean
    line     linear-quadratic navigation, 1 to 3 steps, infinitely many trajectories
    field    smooth navigation for several horizons, by Monte Carlo against the
             derivative through the dynamics. An error is |m - M| / |M| of
             m = V + alpha H v, with V = v the exact gradient after a step of length
             LENGTH; `noise` is the standard error of that by itself
"""

import argparse
from itertools import product

import numpy as np

from refmaml.environment import circumstances
from refmaml.oracles import rl_bandit, rl_checks, rl_linear_quadratic, rl_navigation
from refmaml.oracles.rl_bandit import Bandit
from refmaml.oracles.rl_linear_quadratic import Line
from refmaml.rl import EstimatedReturn, LinearBaseline, PolicyMAML, Trajectories
from refmaml.training import files

SAMPLES, REPEATS = (1, 2, 4, 8, 16), 200_000
HORIZONS = {1: 200_000, 5: 80_000, 20: 40_000, 100: 16_000}  # trajectories of each
LENGTH, GROUPS, AT_ONCE = 0.2, 20, 4000
NORMAL = 1.96


def bandit_table():
    """{title: the values for 1, 2, 3 and infinitely many samples}"""
    bandit = Bandit()
    counts, exact = (1, 2, 3, np.inf), bandit.value(bandit.theta)
    table = {
        "J_II exact": [rl_bandit.gradient_of_infinite(bandit) for _ in counts],
        "J_I exact": [rl_bandit.gradient_of_samples(bandit, N) for N in counts],
    }
    for name, baseline in product(("naive", "naive + score", "DiCE", "first order"), (0.0, exact)):
        title = f"{name}, exact baseline" if baseline else name
        table[title] = [rl_bandit.moments(bandit, N, baseline)[name] for N in counts]
    return {title: [float(value) for value in values] for title, values in table.items()}


def bandit_batch(bandit, rng, N):
    """REPEATS batches of N samples, each a task of its own."""
    a = bandit.theta + bandit.sigma * rng.standard_normal((REPEATS, N, 1, 1))
    rewards = bandit.reward(a[..., 0])
    return Trajectories(np.ones_like(a), a, rewards).with_advantages(rewards)


def bias_rows():
    """DiCE's mean on one batch and with a second one, less J_II', for each N."""
    bandit, rng = Bandit(), np.random.default_rng(0)
    policy, truth = rl_checks.bandit_policy(bandit), rl_bandit.gradient_of_infinite(bandit)
    maml = PolicyMAML(bandit.alpha, dict(rl_checks.ESTIMATORS)["DiCE"])
    rows = []
    for N in SAMPLES:
        found = {"N": N, "exact": float(rl_bandit.moments(bandit, N)["DiCE"] - truth)}
        for title, independent in (("one batch", False), ("independent", True)):
            batches = [bandit_batch(bandit, rng, N) for _ in range(1 + independent)]
            second = batches[1:] or None
            adapted = maml.adapt(policy, np.array([bandit.theta]), batches[:1], second)
            values = adapted.pull(bandit.slope(adapted.phi))[:, 0]
            interval = NORMAL * values.std(ddof=1) / np.sqrt(REPEATS)
            found[title] = {"bias": float(values.mean() - truth), "interval": float(interval)}
        rows.append(found)
    return rows


def line_table():
    """{T: {estimator: relative error of the meta-gradient}}"""
    table = {}
    for T in (1, 2, 3):
        truth, found = rl_linear_quadratic.meta_gradients(Line(T), rl_checks.PLACE, rl_checks.RATE)
        size = np.linalg.norm(truth)
        table[str(T)] = {
            name: float(np.linalg.norm(value - truth) / size) for name, value in found.items()
        }
    return table


def field_row(horizon, count):
    """Errors and noise of each estimator of smooth navigation with `horizon` steps."""
    field, rng = rl_navigation.Field(), np.random.default_rng(horizon)
    p, rounds = field.start(), count // AT_ONCE
    weight = np.full(AT_ONCE, 1 / AT_ONCE)

    def noise():
        return rng.standard_normal((AT_ONCE, horizon, 2))

    def mean_gradient(q):
        return np.mean(
            [rl_navigation.gradient(field, q, noise(), weight) for _ in range(rounds)], axis=0
        )

    step = mean_gradient(p)
    alpha = LENGTH / np.linalg.norm(step)
    V = mean_gradient(p + alpha * step)
    fitted = LinearBaseline()
    first = rl_navigation.trajectories(field, p, noise())
    baseline = fitted.fit(first, first.returns_to_go())
    samples, policy = {}, rl_checks.field_policy(field)
    estimators = dict(rl_checks.ESTIMATORS)
    for _ in range(rounds):
        eps = noise()
        truth = rl_navigation.hessian_product(field, p, V, eps, weight)
        samples.setdefault("truth", []).append(truth[None])
        batch = grouped(rl_navigation.trajectories(field, p, eps))
        returns = batch.returns_to_go()
        wide = np.repeat(baseline, len(batch), axis=0)
        below = returns - fitted.predict(batch, wide)
        cases = [("naive", "naive", returns)]
        cases += [(f"{name} + baseline", name, below) for name, _ in rl_checks.ESTIMATORS]
        for title, name, A in cases:
            objective = EstimatedReturn(policy, estimators[name], batch.with_advantages(A))
            product_v = objective.hvp(objective.primal(p[None]), V[None])
            samples.setdefault(title, []).append(product_v)
    print(f"horizon {horizon}: done", flush=True)
    return summary(samples, V, alpha) | {"trajectories": count, "horizon": horizon}


def grouped(batch):
    """The trajectories of one task as GROUPS tasks, whose means give the noise."""

    def parts(a):
        return a.reshape(GROUPS, -1, *a.shape[2:])

    return Trajectories(*(parts(a) for a in (batch.states, batch.actions, batch.rewards)))


def summary(samples, V, alpha):
    """{"errors": {estimator: .}, "noise": {estimator: .}}, relative to |M|."""
    stacked = {name: np.concatenate(rows) for name, rows in samples.items()}
    truth = V + alpha * stacked["truth"].mean(axis=0)
    size, errors, noise = np.linalg.norm(truth), {}, {}
    for name, rows in stacked.items():
        spread = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
        noise[name] = float(alpha * np.linalg.norm(spread) / size)
        errors[name] = float(np.linalg.norm(V + alpha * rows.mean(axis=0) - truth) / size)
    errors["first order"] = float(np.linalg.norm(V - truth) / size)
    return {"errors": errors, "noise": noise}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--parts", nargs="+", default=["bandit", "bias", "line", "field"])
    given = parser.parse_args()
    make = {
        "bandit": bandit_table,
        "bias": bias_rows,
        "line": line_table,
        "field": lambda: [field_row(*setting) for setting in HORIZONS.items()],
    }
    record = {"repeats": REPEATS} | circumstances()
    for name in given.parts:
        record[name] = make[name]()
        print(f"{name}: done", flush=True)
    files.write_json(given.out, record)


if __name__ == "__main__":
    main()
