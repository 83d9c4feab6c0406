"""Adaptation as a method offers it to a caller."""

import numpy as np

from refmaml.layers.layer import Array
from refmaml.methods.meta_gradient import Method
from refmaml.model import Net


def adapt(method: Method, net: Net, meta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Adapted parameters phi (T, P) for support sets x (T, N, ...), y (T, N, ...).

    meta (M,), as method.init made it; phi is an array of meta's kind.
    Raises ArgumentError, and NonFiniteError naming step, task and layer.
    """

    def work(net: Net, meta: Array, x: Array, y: Array) -> tuple[list, dict]:
        return [method.adapted(net, meta, x, y)], {}

    (phi,), _ = net.run(work, meta, x, y)
    return phi
