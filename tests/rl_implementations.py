"""Meta-gradients of policies as programs write them: NumPy by hand, PyTorch and JAX by
autodiff. One `Way` is one program; its fields are the lines in which they differ.

surrogate(lib, l, b, problem)  the inner objective of one task, to be ascended, from
                               log-probabilities l (N, H) and the batch b of the task
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Task(NamedTuple):
    """The trajectories of one task."""

    states: Any
    actions: Any
    rewards: Any
    advantages: Any
    log_probs: Any


def task(batch, t):
    return Task(*(a[t] for a in batch))


def over(problem, b):
    """What sums over steps are divided by."""
    return b.rewards.shape[0] * (b.rewards.shape[1] if problem.over == "steps" else 1)


# ---- surrogates, for libraries with autodiff -----------------------------------------


def naive(lib, l, b, problem):
    return (l * b.advantages).sum() / over(problem, b)


def lvc(lib, l, b, problem):
    return (lib.exp(l - lib.stop(l)) * b.advantages).sum() / over(problem, b)


def lvc_of_data(lib, l, b, problem):
    return (lib.exp(l - b.log_probs) * b.advantages).sum() / over(problem, b)


def not_detached(lib, l, b, problem):
    return (lib.exp(l - l) * b.advantages).sum() / over(problem, b)


def dice(lib, l, b, problem):
    c = l.cumsum(1)
    return (lib.exp(c - lib.stop(c)) * b.rewards).sum() / over(problem, b)


def prefix_and_to_go(lib, l, b, problem):
    c = l.cumsum(1)
    return (lib.exp(c - lib.stop(c)) * b.advantages).sum() / over(problem, b)


def own_rewards(lib, l, b, problem):
    return (lib.exp(l - lib.stop(l)) * b.rewards).sum() / over(problem, b)


def divided_by_episodes(lib, l, b, problem):
    """Cumulative sums over a flat list of steps, with weights over the episodes."""
    N, H = l.shape
    flat, parts = l.reshape(-1), []
    for i in range(N * H):
        before = parts[i - 1] if i else flat[-1]
        weight = (1.0 if i == 0 or i % H else 0.0) / N
        parts.append(flat[i] + before * weight)
    c = lib.stack(parts).reshape(N, H)
    return (lib.exp(c - lib.stop(c)) * b.advantages).sum() / over(problem, b)


@dataclass(frozen=True)
class Way:
    """One program.

    inner, outer  surrogates
    score      None, or from (lib, l (N, H), J) the term that E-MAML adds
    first_order   no graph of the inner step
    averaged   log-probabilities are means over action dimensions
    batch      which batch the meta-loss is computed on: "outer", or the number of one
    sign       -1: the gradient of the loss
    """

    inner: Any = naive
    outer: Any = lvc
    score: Any = None
    first_order: bool = False
    averaged: bool = False
    batch: Any = "outer"
    sign: float = 1.0
    independent: bool = False

    def log_probs(self, lib, problem, params, b):
        if not self.averaged:
            return problem.log_probs(params, b.states, b.actions)
        l = params["log_sigma"]
        e = (b.actions - problem.mean(params, b.states)) * lib.exp(-l)
        return (-(e**2) / 2 - l - np.log(2 * np.pi) / 2).mean(-1)

    def objective(self, lib, problem, params, batch):
        """The mean over tasks of what the program differentiates."""
        total, T = 0, len(batch.outer.rewards)
        for t in range(T):
            phi, scores = params, 0
            inner = [task(b, t) for b in batch.inner]
            for b in inner:

                def estimate(at, b=b):
                    return self.inner(lib, self.log_probs(lib, problem, at, b), b, problem)

                if self.score is not None:
                    scores = scores + self.score_of(lib, problem, phi, b, task(batch.outer, t))
                g = lib.gradient(estimate, phi, self.first_order)
                phi = {n: phi[n] + problem.inner_lr * g[n] for n in phi}
            b = task(batch.outer, t) if self.batch == "outer" else inner[self.batch]
            l = self.log_probs(lib, problem, phi, b)
            total = total + self.outer(lib, l, b, problem) + scores
        return total / T

    def score_of(self, lib, problem, phi, b, after):
        J = after.rewards.sum() / over(problem, after)
        return self.score(lib, self.log_probs(lib, problem, phi, b), J)

    def in_torch(self, problem, params, batch):
        params = {n: p.clone().requires_grad_() for n, p in params.items()}
        value = self.objective(Torch, problem, params, batch)
        found = Torch.gradient(lambda p: value, params, True)
        return {n: self.sign * g for n, g in found.items()}

    def in_jax(self, problem, params, batch):
        import jax

        found = jax.grad(lambda p: self.objective(Jax, problem, p, batch))(params)
        return {n: self.sign * g for n, g in found.items()}


def summed(lib, l, J):
    return l.sum() * J


def of_means(lib, l, J):
    return l.mean() * J


class Torch:
    @staticmethod
    def exp(x):
        return x.exp()

    @staticmethod
    def stop(x):
        return x.detach()

    @staticmethod
    def stack(parts):
        import torch

        return torch.stack(parts)

    @staticmethod
    def gradient(f, phi, first_order):
        import torch

        value = f(phi)
        if not value.requires_grad:
            return {n: torch.zeros_like(p) for n, p in phi.items()}
        found = torch.autograd.grad(
            value, list(phi.values()), create_graph=not first_order, retain_graph=True,
            allow_unused=True,
        )  # fmt: skip
        zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(phi.values(), found)]  # noqa: B905
        return dict(zip(phi, zeros))  # noqa: B905


class Jax:
    @staticmethod
    def exp(x):
        import jax.numpy as jnp

        return jnp.exp(x)

    @staticmethod
    def stop(x):
        from jax.lax import stop_gradient

        return stop_gradient(x)

    @staticmethod
    def stack(parts):
        import jax.numpy as jnp

        return jnp.stack(parts)

    @staticmethod
    def gradient(f, phi, first_order):
        import jax

        found = jax.grad(f)(phi)
        return {n: Jax.stop(g) for n, g in found.items()} if first_order else found


# ---- NumPy: the recursion with hand-written products ---------------------------------


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
