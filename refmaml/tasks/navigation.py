"""2-D navigation: a point walks to a goal that the policy does not see.

    s_0 = 0,  s_{t+1} = s_t + clip(0.1 a_t, -0.1, 0.1),  r_t = -|s_{t+1} - goal|

A task is a goal, uniform in [-0.5, 0.5]^2. A trajectory ends after 100 steps, or
earlier where both coordinates are within 0.01 of the goal. A task's score is the mean
return, the sum of all r_t.
Source: Finn, Abbeel, Levine 2017, section 5.3, with the settings of the released code
(cbfinn/maml_rl).
"""

from typing import NamedTuple

import numpy as np

from refmaml.rl.trajectories import Trajectories
from refmaml.tasks.streams import task_rngs

HORIZON, STEP, NEAR, RANGE = 100, 0.1, 0.01, 0.5


class Draws(NamedTuple):
    """What chance decides of T tasks: goals (T, 2), and standard normal noise
    (batches, T, N, H, 2) of their trajectories.
    """

    goals: np.ndarray
    noise: np.ndarray

    @property
    def nbytes(self):
        """The bytes of both arrays."""
        return self.goals.nbytes + self.noise.nbytes

    def tasks(self, some):
        """The Draws of the tasks in a slice."""
        return Draws(self.goals[some], self.noise[:, some])


def draw(seed, step, tasks, batches, episodes, horizon=HORIZON, dtype=np.float32):
    """The Draws of meta-step `step`: `batches` batches of N = `episodes` trajectories.

    Task i of a meta-step has its own counter-based stream (see streams.py), so that a
    resumed run draws the same numbers.
    """
    goals = np.empty((tasks, 2), dtype)
    noise = np.empty((batches, tasks, episodes, horizon, 2), dtype)
    for i, rng in enumerate(task_rngs(seed, step, range(tasks))):
        goals[i] = rng.uniform(-RANGE, RANGE, 2)
        noise[:, i] = rng.standard_normal(noise[:, i].shape, dtype=noise.dtype)
    return Draws(goals, noise)


def walk(mean, sigma, goals, noise):
    """The Trajectories of the actions a = mean(s) + sigma noise.

    mean   states (T, N, 2) -> means of actions (T, N, 2)
    sigma  (T or 1, 2); goals (T, 2); noise (T, N, H, 2)
    Steps after the goal was reached are masked, and their numbers are 0.
    """
    T, N, H, _ = noise.shape
    states, actions = np.zeros_like(noise), np.zeros_like(noise)
    rewards, mask = np.zeros((T, N, H), noise.dtype), np.zeros((T, N, H), noise.dtype)
    s, active = np.zeros((T, N, 2), noise.dtype), np.ones((T, N), bool)
    for t in range(H):
        a = mean(s) + sigma[:, None] * noise[:, :, t]
        states[:, :, t], actions[:, :, t] = s * active[..., None], a * active[..., None]
        s = move(s, a)
        rewards[:, :, t], mask[:, :, t] = -distance(s, goals) * active, active
        active &= ~reached(s, goals)
        if not active.any():
            break
    return Trajectories(states, actions, rewards, mask)


def move(s, a):
    """The next states; s, a (T, N, 2)."""
    return s + np.clip(STEP * a, -STEP, STEP)


def distance(s, goals):
    """|s - goal|, (T, N)."""
    d = s - goals[:, None]
    return np.sqrt((d * d).sum(axis=-1))


def reached(s, goals):
    """Whether both coordinates are near the goal's, (T, N)."""
    return (np.abs(s - goals[:, None]) < NEAR).all(axis=-1)


def best_returns(goals, horizon=HORIZON):
    """The largest return that any policy can reach, (T,), for goals (T, 2).

    Each coordinate goes straight to the goal. At every step both are then as near as
    they can be, so every reward is the largest possible, and the goal is reached first.
    """
    far = np.abs(goals)
    steps = np.arange(1, horizon + 1)[:, None, None]
    left = np.maximum(far - STEP * steps, 0)  # (H, T, 2)
    return -np.sqrt((left * left).sum(axis=-1)).sum(axis=0)
