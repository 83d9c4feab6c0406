"""The sine waves of MAML's regression experiment."""

from dataclasses import dataclass

import numpy as np

from refmaml.tasks.checks import expect_count, expect_interval, expect_real_dtype
from refmaml.tasks.shots import split
from refmaml.tasks.streams import task_range, task_rngs


@dataclass(frozen=True)
class Sinusoids:
    """A task is a wave  y = A sin(x - phi)  with uniform A, phi and x.

    amplitude  (low, high) of A
    phase      (low, high) of phi, radians
    x_range    (low, high) of x
    Source: Finn, Abbeel, Levine, "Model-agnostic meta-learning", 2017, section 5.1; the
    sign of phi is that of the authors' code.
    Raises ArgumentError for an invalid interval.
    """

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, np.pi)
    x_range: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self):
        for name in ("amplitude", "phase", "x_range"):
            expect_interval(name, getattr(self, name))

    def sample(self, tasks, k_shot=10, k_query=10, *, seed=0, step=0, dtype=np.float32):
        """A Batch: x (T, k, 1), y (T, k, 1); k is k_shot in the support, else k_query.

        tasks       how many, or which ones as a range
        seed, step  integers: the same two give the same task i, whatever `tasks` is
        Raises ArgumentError.
        """
        expect_count("k_shot", k_shot)
        expect_count("k_query", k_query)
        expect_real_dtype(dtype)
        tasks = task_range(tasks)
        # A task's A, phi and every x, as draws from [0, 1).
        unit = np.empty((len(tasks), 2 + k_shot + k_query, 1))
        for draws, rng in zip(unit, task_rngs(seed, step, tasks), strict=True):
            rng.random(out=draws)
        amplitude, phase = between(self.amplitude, unit[:, :1]), between(self.phase, unit[:, 1:2])
        x = between(self.x_range, unit[:, 2:])
        return split(x, amplitude * np.sin(x - phase), k_shot, dtype)


def between(interval, unit):
    """Draws from [0, 1) as draws from an interval."""
    low, high = interval
    return low + (high - low) * unit
