"""The tasks of a step do not depend on chunks or on the version of NumPy."""

import hashlib

import numpy as np
import pytest

from refmaml import LinearRegression, Quadratics, Sinusoids, TwoLayerLinear
from refmaml.tasks.few_shot import FewShot

PICTURES = np.arange(30 * 20 * 4 * 4).reshape(30, 20, 4, 4).astype(np.uint8)
TABLE = FewShot(PICTURES, [str(i) for i in range(30)])
DISTRIBUTIONS = {
    "few-shot": TABLE,
    "as classes": FewShot(PICTURES, [str(i) for i in range(30)], rotations="as_classes"),
    "sinusoids": Sinusoids(),
    "linear": LinearRegression(4),
    "two-layer": TwoLayerLinear(5, 2),
    "quadratics": Quadratics(4),
}


def arrays(batch):
    return [np.ascontiguousarray(a).tobytes() for _, a in batch.named]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_task_i_of_a_step_is_the_same_in_whatever_pieces_the_step_is_sampled(name):
    sample = DISTRIBUTIONS[name].sample
    whole = sample(12, seed=3, step=5)
    for size in (1, 3, 5):  # chunks, or the shares of ranks
        for start in range(0, 12, size):
            assert arrays(sample(range(start, min(12, start + size)), seed=3, step=5)) == arrays(
                whole[start : start + size]
            )
    for rank in range(4):  # every fourth
        assert arrays(sample(range(rank, 12, 4), seed=3, step=5)) == arrays(whole[rank::4])
    assert arrays(sample(12, seed=3, step=6)) != arrays(whole)


def test_the_first_thousand_episodes_are_those_of_every_machine_and_version():
    """NumPy guarantees its random streams for one version only.

    If they change, older checkpoints cannot be resumed to the same bits.
    """
    seen = hashlib.sha256()
    for step in range(250):
        for a in arrays(TABLE.sample(4, n_way=3, k_query=2, step=step)):
            seen.update(a)
    assert seen.hexdigest() == "54c89b92dcd57dc0cd3a757b28f2b93440884a25162632d03d528f9bbb91c755"
    x = Sinusoids(phase=(0, 0), amplitude=(1, 1)).sample(1000, dtype=np.float64)
    assert (
        hashlib.sha256(x.x_support.tobytes()).hexdigest()
        == "f3118d5b26090127b690993c5ebae3e06bed67f1d5c6157617b3f5407491b549"
    )
