"""Homework 2, solved: softmax cross-entropy, line by line."""

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
    dtotal = -(dlogp / line["total"]).sum(axis=1, keepdims=True)
    de = np.broadcast_to(dtotal, z.shape)
    dshifted = dlogp + de * line["e"]
    dz = dshifted  # top cancels: its adjoint, -dshifted.sum(axis=1), is 0
    return {"dlogp": dlogp, "dtotal": dtotal, "de": de, "dshifted": dshifted, "dz": dz}


def fn(params, batch):
    """What `refmaml check gradient` calls: (gradient, loss)."""
    d = adjoints(params["z"], batch)
    return {"z": d["dz"]}, forward(params["z"], batch)["loss"]
