"""Quadratic losses: tasks whose every meta-gradient has a closed form."""

from dataclasses import dataclass

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.tasks.checks import expect_count, expect_interval, expect_real_dtype
from refmaml.tasks.orthonormal import random_orthonormal
from refmaml.tasks.streams import task_range, task_rngs


@dataclass(frozen=True)
class Quadratics:
    """A task is two losses  f(w) = 1/2 (w - c)' A (w - c), for support and query.

    dim          P, the length of w
    eigenvalues  (low, high): A = Q diag(s) Q' with s uniform between them and Q a
                 uniformly random orthogonal matrix
    The minima c are standard normal. The gradient is A (w - c), the Hessian A, so that
    gradient descent with step alpha contracts if alpha * high < 2.
    Raises ArgumentError unless dim >= 1 and 0 < low <= high.
    """

    dim: int
    eigenvalues: tuple[float, float] = (0.5, 3.0)

    def __post_init__(self):
        expect_count("dim", self.dim)
        expect_interval("eigenvalues", self.eigenvalues)
        expect(self.eigenvalues[0] > 0, "eigenvalues", "positive ones", repr(self.eigenvalues))

    def sample(self, tasks, *, seed=0, step=0, dtype=np.float64):
        """A Batch: x (T, P, P) holds A, exactly symmetric, and y (T, P) holds c.

        tasks       how many, or which ones as a range
        seed, step  integers: the same two give the same task i, whatever `tasks` is
        Raises ArgumentError.
        """
        expect_real_dtype(dtype)
        draws = [
            (*self._loss(rng), *self._loss(rng)) for rng in task_rngs(seed, step, task_range(tasks))
        ]
        return Batch(*(np.stack(arrays).astype(dtype) for arrays in zip(*draws, strict=True)))

    def _loss(self, rng):
        s = rng.uniform(*self.eigenvalues, size=self.dim)
        q = random_orthonormal(rng, self.dim, self.dim)
        a = (q * s) @ q.T
        # The product is symmetric only to rounding.
        return (a + a.T) / 2, rng.standard_normal(self.dim)
