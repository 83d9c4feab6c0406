"""Arithmetic on flat vectors on a GPU: see reference.py for what is computed, vector.cu for how. Never run on one yet."""
import numpy as np

__all__ = ["vector_step", "vector_scale", "vector_add_rows"]


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
