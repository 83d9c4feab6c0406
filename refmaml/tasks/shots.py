"""Batches of support and query sets from examples in order."""

import numpy as np

from refmaml.batch import Batch


def batch_of_shots(draws, k_shot, dtype):
    """The Batch of T tasks (x, y): the first `k_shot` examples are the support set.

    draws: T pairs x (N, D), y (N, E) in float64; cast to `dtype` here, so that a
    float32 task is the float64 task, rounded.
    """
    x, y = (np.stack(arrays) for arrays in zip(*draws, strict=True))
    return split(x, y, k_shot, dtype)


def split(x, y, k_shot, dtype):
    """The Batch of x (T, N, D), y (T, N, E); the first `k_shot` are the support.

    The others are the query set. The arrays of the Batch have `dtype`.
    """
    return Batch(
        *(
            np.ascontiguousarray(part, dtype)
            for part in (x[:, :k_shot], y[:, :k_shot], x[:, k_shot:], y[:, k_shot:])
        )
    )
