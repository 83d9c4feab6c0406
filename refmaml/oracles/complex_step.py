"""The complex step: Im f(x + i h v) / h = f'(x) v for an analytic function f.

f(x + i h v) = f(x) + i h f'(x) v - h^2 ... Nothing is subtracted, so h can be 1e-30,
where the h^2 term vanishes: the derivative is as exact as f itself.
Sources: Squire & Trapp 1998; Martins, Sturdza, Alonso 2003.
"""

import numpy as np

H = 1e-30


def shifted(x, direction):
    """x + i h v."""
    return x + 1j * H * direction


def derivative(value):
    """Im value / h, for a value computed from `shifted` inputs."""
    return value.imag / H


def directional(f, x, v):
    """f'(x) v."""
    return derivative(f(shifted(x, v)))


def gradient(f, x, chunk=64):
    """df/dx (D,) of f at x (D,). f maps points (B, D) to values (B,).

    The points of one call differ from x in one coordinate each, `chunk` of them at a
    time.
    """
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
