"""What the machine can do: NumPy's own product of two matrices, timed in turn with everything else."""

import numpy as np

from refmaml.bench.contestants.contestant import Contestant

SIZE = 2048
GFLOP = 2 * SIZE**3 / 1e9


def prepare(workload, dtype):
    """C = A B of SIZE^2 numbers in float32, on all threads; returns an empty array."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
    c = np.empty_like(a)

    def run():
        np.matmul(a, b, out=c)
        return c[:0, 0]

    return run


CONTESTANT = Contestant("sgemm", "sgemm", (), lambda workload: {}, prepare, checked=False)
