"""The mean return of a policy after 0, 1, 2, ... updates on held-out goals."""

import numpy as np

from refmaml.rl import Trajectories
from refmaml.tasks import navigation
from refmaml.training.evaluation import HELD_OUT_STEP, Evaluation
from refmaml.training.policy_step import CHUNK

TRAJECTORIES = 40  # of 100 steps: 4000 steps of the environment for an update


def step_sizes(inner_lr, updates):
    """alpha, then half of it: cbfinn/maml_rl, maml_examples/test_maml_point.py."""
    return [inner_lr if k == 0 else inner_lr / 2 for k in range(updates)]


def goals_and_noise(tasks, updates, seed=0, horizon=navigation.HORIZON, dtype=np.float32):
    """The Draws of held-out goals: no meta-step of training has their streams."""
    return navigation.draw(seed, HELD_OUT_STEP, tasks, updates + 1, TRAJECTORIES, horizon, dtype)


def returns_after_updates(policy, method, theta, draws, rates, keep=0):
    """(returns (updates + 1, T), the Trajectories of the first `keep` tasks).

    Each update is one step of the policy gradient on a batch of its own. Trajectories
    are a list over 0, 1, ... updates; of at most CHUNK tasks, empty for keep = 0.
    """
    found, kept = [], []
    for i in range(0, len(draws.goals), CHUNK):
        part, phi, own = draws.tasks(slice(i, i + CHUNK)), theta[None], []
        for k, noise in enumerate(part.noise):
            batch = method.collect(policy, phi, part.goals, noise)
            own.append(batch.returns().mean(axis=1))
            if keep and i == 0:
                kept.append(first_tasks(batch, keep))
            if k < len(rates):
                gradient = method.objective(policy, batch).gradient(phi)
                phi = phi + phi.dtype.type(rates[k]) * gradient
        found.append(own)
    return np.concatenate(found, axis=1), kept


def first_tasks(batch, count):
    """The Trajectories of the first tasks, without advantages."""
    parts = (batch.states, batch.actions, batch.rewards, batch.mask)
    return Trajectories(*(a[:count] for a in parts))


def evaluator(config, policy, method):
    """A function theta -> Evaluation: the return after `eval_steps` updates."""
    updates = config["eval_steps"] or config["inner_steps"]

    def evaluate(theta):
        draws = goals_and_noise(
            config["eval_tasks"], updates, config["seed"], config["horizon"], config["dtype"]
        )
        rates = step_sizes(config["inner_lr"], updates)
        returns, _ = returns_after_updates(policy, method, theta, draws, rates)
        return Evaluation("return", returns[-1])

    return evaluate
