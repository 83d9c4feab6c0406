"""Noisy linear regression, a new weight vector for every task."""

from dataclasses import dataclass

import numpy as np

from refmaml.tasks.checks import expect_count, expect_level, expect_real_dtype
from refmaml.tasks.shots import batch_of_shots
from refmaml.tasks.streams import task_range, task_rngs


@dataclass(frozen=True)
class LinearRegression:
    """A task is a weight vector w in R^d:  y = <w, x> + noise * e.

    w, x and e are standard normal.
    dim    d, the length of x
    noise  standard deviation of the noise in y, in y's unit
    With squared error every loss is a quadratic with Hessian X'X/N (twice that, if the
    loss has no factor 1/2), and its meta-gradients have closed forms. Raises
    ArgumentError unless dim >= 1 and noise >= 0.
    """

    dim: int
    noise: float = 0.1

    def __post_init__(self):
        expect_count("dim", self.dim)
        expect_level("noise", self.noise)

    def sample(self, tasks, k_shot=10, k_query=10, *, seed=0, step=0, dtype=np.float64):
        """A Batch: x (T, k, d), y (T, k, 1); k is k_shot in the support, else k_query.

        tasks       how many, or which ones as a range
        seed, step  integers: the same two give the same task i, whatever `tasks` is
        Raises ArgumentError.
        """
        expect_count("k_shot", k_shot)
        expect_count("k_query", k_query)
        expect_real_dtype(dtype)
        rngs = task_rngs(seed, step, task_range(tasks))
        return batch_of_shots([self._task(rng, k_shot + k_query) for rng in rngs], k_shot, dtype)

    def _task(self, rng, examples):
        w = rng.standard_normal((self.dim, 1))
        x = rng.standard_normal((examples, self.dim))
        return x, x @ w + self.noise * rng.standard_normal((examples, 1))
