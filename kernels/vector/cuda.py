"""Arithmetic on flat vectors on a GPU: see reference.py for what is computed, vector.cu for how. Never run on one yet."""
import numpy as np

__all__ = ["vector_step", "vector_scale", "vector_add_rows", "vector_adam"]


def wide(a, out):
    """A row of rates or parameters as long as the rows of `out`."""
    return a if a.shape[1] == out.shape[1] else np.broadcast_to(a, (len(a), out.shape[1]))


def vector_step(launch, out, a, rates, b):
    """out = a - rates * b; out may be b."""
    launch.elements("vector", "vector_step", [out], [a, wide(rates, out), b], out.shape[1])


def vector_scale(launch, out, rates, b):
    """out = rates * b."""
    launch.elements("vector", "vector_scale", [out], [wide(rates, out), b], out.shape[1])


def vector_add_rows(launch, total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    launch.elements("vector", "vector_add_rows", [total], [a], len(a), total.shape[1])


def vector_adam(launch, out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps); n (1, 1), v may be w. See methods/reptile.py."""
    numbers = out.shape[1], float(beta2), float(1 - beta2), float(eps)
    launch.elements("vector", "vector_adam", [out, v], [a, wide(rates, out), g, w, n], *numbers)
