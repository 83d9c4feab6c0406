"""Softmax cross-entropy on a GPU, by the kernels of cross_entropy.cu.

Not run on a GPU yet.
"""

import numpy as np

__all__ = ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy_r_backward"]


def cross_entropy_forward(launch, loss, p, z, labels, scale):
    """Fills loss (T,) and the probabilities p (T, N, C)."""
    labels = labels.astype(np.int64, copy=False)
    launch.teams(
        "cross_entropy",
        "cross_entropy_forward",
        1,
        [loss, p],
        [z, labels],
        *z.shape[1:],
        float(scale),
    )


def cross_entropy_backward(launch, dz, p, labels, scale):
    """dz = scale (p - onehot)."""
    labels = labels.astype(np.int64, copy=False)
    launch.elements(
        "cross_entropy", "cross_entropy_backward", [dz], [p, labels], *p.shape[1:], float(scale)
    )


def cross_entropy_r_backward(launch, rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>)."""
    launch.elements(
        "cross_entropy",
        "cross_entropy_r_backward",
        [rdz],
        [p, rz],
        *p.shape[1:],
        float(scale),
        count=p.shape[1],
    )
