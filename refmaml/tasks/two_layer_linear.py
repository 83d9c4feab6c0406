"""Linear tasks that share a subspace: the model of Collins et al. 2022.

There MAML and ANIL provably learn the representation.
"""

from dataclasses import dataclass, field

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.tasks.checks import expect_count, expect_level, expect_real_dtype
from refmaml.tasks.orthonormal import random_orthonormal
from refmaml.tasks.shots import batch_of_shots
from refmaml.tasks.streams import build_rng, task_range, task_rngs


@dataclass(frozen=True)
class TwoLayerLinear:
    """Task t is a head w_*t on a shared B_*:  y = <w_*t, B_*' x> + noise * e.

    dim    d, the length of x
    rank   r, the dimension of the shared subspace; w_*t is in R^r
    noise  standard deviation of the noise in y, in y's unit
    seed   chooses `basis`, B_* (d, r), with orthonormal columns that span a uniformly
           random subspace
    x, e and the heads w_*t are standard normal and independent. The question is whether
    meta-training the two-layer net x -> B'x -> <w, .> makes col(B) equal col(B_*).
    Source: Collins, Mokhtari, Oh, Shakkottai, "MAML and ANIL provably learn
    representations", ICML 2022, section 2.
    Raises ArgumentError unless 1 <= rank <= dim and noise >= 0.
    """

    dim: int
    rank: int
    noise: float = 0.0
    seed: int = 0
    basis: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        expect_count("dim", self.dim)
        expect_count("rank", self.rank)
        expect(self.rank <= self.dim, "rank", f"at most dim = {self.dim}", repr(self.rank))
        expect_level("noise", self.noise)
        basis = random_orthonormal(build_rng(self.seed), self.dim, self.rank)
        basis.setflags(write=False)
        object.__setattr__(self, "basis", basis)  # a frozen dataclass

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

    def population(self, tasks, *, seed=0, step=0, dtype=np.float64):
        """The same tasks with examples whose mean is the expectation over x ~ N(0, I).

        A Batch: x = sqrt(d) I (T, d, d), y = x B_* w_*t (T, d, 1), equal in support and
        query. As X'X/N = I, mean_n (<x_n, b> - y_n)^2 = |b - B_* w_*t|^2 = E_x (<x, b>
        - y)^2. The noise would only add its variance and is left out. Task i has the
        same head as in `sample`. Raises ArgumentError.
        """
        expect_real_dtype(dtype)
        weights = np.stack([self._weight(rng) for rng in task_rngs(seed, step, task_range(tasks))])
        x = np.broadcast_to(
            np.sqrt(self.dim) * np.eye(self.dim), (len(weights), self.dim, self.dim)
        )
        y = np.sqrt(self.dim) * weights
        return Batch(*(np.array(a, dtype, order="C") for a in (x, y, x, y)))

    def _weight(self, rng):
        return self.basis @ rng.standard_normal((self.rank, 1))

    def _task(self, rng, examples):
        weight = self._weight(rng)
        x = rng.standard_normal((examples, self.dim))
        return x, x @ weight + self.noise * rng.standard_normal((examples, 1))
