"""The complex step: for analytic f, f(x + i h v) = f(x) + i h f'(x) v - h^2 ..., so Im f(x + i h v) / h is f'(x) v.

Nothing is subtracted, so h can be 1e-30 and the h^2 term is gone: the derivative is as exact as f itself.
Squire & Trapp 1998; Martins, Sturdza, Alonso 2003.
"""

import numpy as np

H = 1e-30


def shifted(x, direction):
    """x + i h v."""
    return x + 1j * H * direction


def derivative(value):
    """Im value / h: what `shifted` inputs left in the output."""
    return value.imag / H


def directional(f, x, v):
    """f'(x) v."""
    return derivative(f(shifted(x, v)))


def gradient(f, x, chunk=64):
    """df/dx (D,) of f at x (D,), where f maps points (B, D) to values (B,): a row of the batch for every coordinate."""
    out = np.empty(len(x))
    for start in range(0, len(x), chunk):
        steps = np.eye(len(x))[start : start + chunk]
        out[start : start + chunk] = derivative(f(shifted(x[None], steps)))
    return out


def jacobian(f, x, chunk=64):
    """df/dx (M, D) of f: (B, D) -> (B, M), a column for every coordinate."""
    steps = np.eye(len(x))
    columns = [
        derivative(f(shifted(x[None], steps[i : i + chunk]))) for i in range(0, len(x), chunk)
    ]
    return np.concatenate(columns).T
