"""Feature reuse: how much adaptation changes what each layer computes.

A net reuses its features if adaptation changes the head and hardly the layers before
it. Source: Raghu, Raghu, Bengio, Vinyals, "Rapid learning or feature reuse?", 2020,
section 3.2; the similarity is linear CKA (Kornblith, Norouzi, Lee, Hinton 2019).
"""

from typing import NamedTuple

import numpy as np

from refmaml.errors import expect


class LayerChange(NamedTuple):
    """What adaptation did to the outputs h of one layer, on the same inputs.

    name        the layer's name in the net, and `kind` its class
    change      |h(phi) - h(theta)| / |h(theta)|
    similarity  linear CKA of h(theta) and h(phi): 1 if they differ by a rotation, a
                scale and a shift only, 0 if they have nothing in common
    """

    name: str
    kind: str
    change: float
    similarity: float


def layer_changes(net, theta, phi, x):
    """[LayerChange] of every layer, for parameters theta and phi (P,) and inputs x.

    x  (1, N, ...), N >= 2 examples. Raises ArgumentError for other shapes.
    """
    for name, w in (("theta", theta), ("phi", phi)):
        shape = (net.num_params,)
        expect(np.shape(w) == shape, name, f"shape {shape}", f"{np.shape(w)}")
    ok = np.ndim(x) >= 2 and len(x) == 1 and x.shape[1] >= 2
    expect(ok, "x", "inputs (1, N, ...) with N >= 2", f"{np.shape(x)}")
    found = []
    before, after = (net.layer_outputs(np.asarray(w)[None], x) for w in (theta, phi))
    for (name, layer, h), (_, _, adapted) in zip(before, after, strict=True):
        h, adapted = (a[0].reshape(a.shape[1], -1).astype(float) for a in (h, adapted))
        size = np.linalg.norm(h)
        change = np.linalg.norm(adapted - h) / size if size else np.inf
        kind = type(layer).__name__
        found.append(LayerChange(str(name), kind, float(change), linear_cka(h, adapted)))
    return found


def linear_cka(a, b):
    """|B'A|^2 / (|A'A| |B'B|) of two matrices (N, D) and (N, E), columns centred."""
    grams = []
    for h in (a, b):
        h = h - h.mean(axis=0)
        grams.append(h @ h.T)
    scale = np.linalg.norm(grams[0]) * np.linalg.norm(grams[1])
    return float((grams[0] * grams[1]).sum() / scale) if scale else 0.0
