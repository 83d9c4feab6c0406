"""The machine's limit: NumPy's product of two float32 matrices."""

import numpy as np

from refmaml.bench.implementations.implementation import EVERY_METHOD, Implementation, no_choices

SIZE = 2048
GFLOP = 2 * SIZE**3 / 1e9


def prepare(workload, dtype):
    """C = A B of SIZE^2 numbers in float32, on all threads. Returns an empty array."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
    c = np.empty_like(a)

    def run():
        np.matmul(a, b, out=c)
        return c[:0, 0]

    return run


IMPLEMENTATION = Implementation(
    "sgemm", "sgemm", (), no_choices, prepare, checked=False, methods=EVERY_METHOD
)
