"""Softmax cross-entropy of logits z (T, N, C) with integer labels (T, N).

One loss per task:

    p = softmax(z)        loss[t] = scale sum_n -log p[t,n,label]
    dz  = scale (p - onehot)
    rdz = scale p (rz - <p, rz>)          the Hessian diag(p) - p p' times rz

Derivation, for one example: -log p_y = log sum_c e^{z_c} - z_y. Its gradient in z_c is
e^{z_c} / sum_d e^{z_d} - [c = y] = p_c - [c = y].
Along rz, log p_c = z_c - log sum_d e^{z_d} changes by rz_c - <p, rz>, so
rp_c = p_c (rz_c - <p, rz>); the one-hot label is constant.

The maximum is subtracted before the exponential, which avoids overflow and changes
nothing else. It is the maximum of the real parts, so that the complex step runs
through.
"""

import numpy as np

__all__ = ["cross_entropy_forward", "cross_entropy_backward", "cross_entropy_r_backward"]


def at_label(a, labels):
    """a[t, n, labels[t, n]], as (T, N)."""
    return np.take_along_axis(a, labels[..., None], axis=-1)[..., 0]


def cross_entropy_forward(loss, p, z, labels, scale):
    """Fills loss (T,) and the probabilities p (T, N, C)."""
    shifted = z - z.real.max(axis=-1, keepdims=True)
    p[...] = np.exp(shifted)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    loss[...] = scale * (np.log(total[..., 0]) - at_label(shifted, labels)).sum(axis=-1)


def cross_entropy_backward(dz, p, labels, scale):
    """dz = scale (p - onehot)."""
    onehot = labels[..., None] == np.arange(p.shape[-1])
    dz[...] = scale * (p - onehot)


def cross_entropy_r_backward(rdz, p, rz, scale):
    """rdz = scale p (rz - <p, rz>)."""
    rdz[...] = scale * p * (rz - (p * rz).sum(axis=-1, keepdims=True))
