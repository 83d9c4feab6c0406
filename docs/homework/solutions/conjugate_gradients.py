"""Homework 6, solved: conjugate gradients."""

import numpy as np

STEPS = 6
_root = np.random.default_rng(0).standard_normal((6, 6))
A = _root @ _root.T / 6 + np.eye(6)  # I + H/lambda
b = np.random.default_rng(1).standard_normal(6)


def product(v):
    """A v: all that the solver may ask for. What `refmaml check solve` calls."""
    return A @ v


def x():
    """The solution of A x = b by STEPS steps from 0 (Hestenes and Stiefel 1952)."""
    found, r, p = np.zeros(len(b)), b, b
    for _ in range(STEPS):
        Ap = product(p)
        a = (r @ r) / (p @ Ap)
        found = found + a * p
        new = r - a * Ap
        p = new + (new @ new) / (r @ r) * p
        r = new
    return found
