"""Homework 2: softmax cross-entropy, line by line.

`forward` is given. Write the adjoint of each of its lines, from the last to the first.
A value that is used twice gets a sum of two terms.

    python docs/homework/compare.py docs/homework/cross_entropy.py
    refmaml check gradient docs/homework/cross_entropy.py:fn

Question: dz has a form of one line, with softmax(z) and the labels. Which one?
"""

import numpy as np

rng = np.random.default_rng(0)
params = {"z": rng.standard_normal((5, 3))}
batch = np.array([0, 2, 1, 1, 0])  # the labels


def example():
    """Inputs for compare.py."""
    return {"z": params["z"], "labels": batch}


def forward(z, labels):
    """Every line of the loss."""
    top = z.max(axis=1, keepdims=True)
    shifted = z - top
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    logp = shifted - np.log(total)
    loss = -logp[np.arange(len(z)), labels].mean()
    return {"shifted": shifted, "e": e, "total": total, "logp": logp, "loss": loss}


def adjoints(z, labels):
    """d loss / d of every line, from the last to the first."""
    line, N = forward(z, labels), len(z)
    dlogp = np.zeros(z.shape)
    dlogp[np.arange(N), labels] = -1 / N
    dtotal = ...
    de = ...
    dshifted = ...
    dz = ...
    return {"dlogp": dlogp, "dtotal": dtotal, "de": de, "dshifted": dshifted, "dz": dz}


def fn(params, batch):
    """What `refmaml check gradient` calls: (gradient, loss)."""
    d = adjoints(params["z"], batch)
    return {"z": d["dz"]}, forward(params["z"], batch)["loss"]
