"""Meta-gradients of policies as programs write them in PyTorch and JAX, by autodiff.

One `Way` is one program; its fields are the lines in which they differ.

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
        pairs = zip(phi.items(), found, strict=True)
        return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


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
