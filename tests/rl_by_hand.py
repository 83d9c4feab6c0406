"""Meta-gradients of policies in NumPy: the recursion with hand-written products."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from rl_implementations import over, task


@dataclass(frozen=True)
class ByHand:
    """The recursion lam <- lam + alpha H lam, one task after another.

    second     "none", "naive", "lvc" or "dice"
    weights    from (b, problem) the weights q (N, H) of the steps; None: advantages
    score      None, or the factor of J in E-MAML's term
    baseline   is subtracted from J
    rate       a factor of the inner step
    averaged   the log-probability is a mean over the action dimensions
    batch      of the meta-loss: "outer", or the number of an inner one
    total      a factor of the answer
    sums       None, or from (N, H) a matrix M (N H, N H): the objective is sum_i q_i
               exp((M l)_i), and `second` is not read
    """

    second: str = "naive"
    weights: Any = None
    score: Any = None
    baseline: float = 0.0
    rate: float = 1.0
    averaged: bool = False
    batch: Any = "outer"
    total: float = 1.0
    independent: bool = False
    sums: Any = None

    def q(self, b, problem):
        q = b.advantages if self.weights is None else self.weights(b, problem)
        return q / over(problem, b)

    def first(self, b, problem):
        """The weights of grad log pi."""
        q = self.q(b, problem)
        return q if self.sums is None else (q.ravel() @ self.sums(*q.shape)).reshape(q.shape)

    def product(self, problem, phi, b, v):
        """H v of one task."""
        m = 1 / b.actions.shape[-1] if self.averaged else 1.0
        q = self.q(b, problem)
        given = b.states, b.actions
        found = problem.hvp(phi, *given, m * self.first(b, problem), v)
        c = m * problem.tangent(phi, *given, v)
        if self.sums is not None:
            M = self.sums(*q.shape)
            w = ((q.ravel() * (M @ c.ravel())) @ M).reshape(q.shape)
            return added(found, 1, problem.gradient(phi, *given, m * w))
        if self.second == "lvc":
            found = added(found, 1, problem.gradient(phi, *given, m * q * c))
        if self.second == "dice":
            r = q - np.concatenate([q[:, 1:], 0 * q[:, :1]], axis=1)
            w = np.cumsum((r * np.cumsum(c, axis=1))[:, ::-1], axis=1)[:, ::-1]
            found = added(found, 1, problem.gradient(phi, *given, m * w))
        return found

    def task_gradient(self, problem, params, batch, t):
        inner, second = ([task(b, t) for b in bs] for bs in (batch.inner, batch.second))
        after, alpha = task(batch.outer, t), problem.inner_lr * self.rate
        m = 1 / after.actions.shape[-1] if self.averaged else 1.0
        phis = [params]
        for b in inner:
            g = problem.gradient(phis[-1], b.states, b.actions, m * self.first(b, problem))
            phis.append(added(phis[-1], alpha, g))
        b = after if self.batch == "outer" else inner[self.batch]
        lam = problem.gradient(phis[-1], b.states, b.actions, m * self.first(b, problem))
        J = after.rewards.sum() / over(problem, after) - self.baseline
        for k in range(len(inner) - 1, -1, -1):
            b = second[k] if self.independent else inner[k]
            if self.second != "none":
                lam = added(lam, alpha, self.product(problem, phis[k], b, lam))
            if self.score is not None:
                b = inner[k]
                ones = np.full(b.rewards.shape, m * self.score)
                lam = added(lam, J, problem.gradient(phis[k], b.states, b.actions, ones))
        return lam

    def __call__(self, problem, params, batch):
        T = len(batch.outer.rewards)
        total = [self.task_gradient(problem, params, batch, t) for t in range(T)]
        return {n: self.total * sum(g[n] for g in total) / T for n in params}


def sums_over_episodes(N, H):
    """M (N H, N H) of `divided_by_episodes`."""
    rows = list(np.eye(N * H))
    for i in range(N * H):
        rows[i] = rows[i] + rows[i - 1] * ((1.0 if i == 0 or i % H else 0.0) / N)
    return np.stack(rows)


def added(a, c, b):
    """a + c b, by name."""
    return {n: a[n] + c * b[n] for n in a}
