"""From single tasks, drawn one by one, to a batch of support and query sets."""

import numpy as np

from refmaml.batch import Batch


def batch_of_shots(draws, k_shot, dtype):
    """The Batch whose support is the first `k_shot` examples of each task's (x, y), whose query is the rest.

    draws: T pairs x (N, D), y (N, E) in float64; cast to `dtype` here, so that a float32 task is the float64
    task rounded.
    """
    x, y = (np.stack(arrays) for arrays in zip(*draws, strict=True))
    return split(x, y, k_shot, dtype)


def split(x, y, k_shot, dtype):
    """The Batch whose support is the first `k_shot` examples of x (T, N, D), y (T, N, E), whose query is the rest, in `dtype`."""
    return Batch(
        *(
            np.ascontiguousarray(part, dtype)
            for part in (x[:, :k_shot], y[:, :k_shot], x[:, k_shot:], y[:, k_shot:])
        )
    )
