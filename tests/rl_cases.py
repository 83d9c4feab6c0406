"""Policies and frozen batches of trajectories for tests."""

import numpy as np

import refmaml as rm


def policy_of(seed=0, states=3, actions=2, **options):
    """A policy on a small tanh net, and parameters for two tasks (2, P)."""
    net = rm.mlp((states, 5, actions), activation="tanh")
    policy = rm.GaussianPolicy(net, **options)
    rng = np.random.default_rng(seed)
    w = policy.init(rng)[None] + 0.3 * rng.standard_normal((2, policy.num_params))
    return policy, w


def trajectories_of(policy, w, seed=1, N=4, H=5, whole=False):
    """Trajectories (2, N, H) whose actions the policy drew at w, some cut short."""
    rng = np.random.default_rng(seed)
    T = 2
    states = rng.standard_normal((T, N, H, policy.state_dim))
    actions = policy.sample(w, states, rng)
    rewards = rng.standard_normal((T, N, H))
    lengths = np.full((T, N), H) if whole else rng.integers(1, H + 1, (T, N))
    mask = (np.arange(H) < lengths[..., None]).astype(float)
    return rm.Trajectories(states, actions, rewards, mask, policy.log_probs(w, states, actions))


def frozen_batch(policy, w, seed=1, **options):
    """Trajectories with random advantages."""
    batch = trajectories_of(policy, w, seed, **options)
    advantages = np.random.default_rng([seed, 1]).standard_normal(batch.axes)
    return batch.with_advantages(advantages)


def off(a, b):
    """The largest difference, relative to the largest number of b."""
    return np.abs(a - b).max() / np.abs(b).max()
