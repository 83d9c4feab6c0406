"""Arithmetic on flat vectors of parameters, a row for each task: (T, P), or (1, P) where all tasks share it."""
import numpy as np

__all__ = ["vector_step", "vector_scale", "vector_add_rows"]


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    np.subtract(a, rates * b, out=out)


def vector_scale(out, rates, b):
    """out = rates * b."""
    np.multiply(rates, b, out=out)


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""
    for row in a:
        total += row
