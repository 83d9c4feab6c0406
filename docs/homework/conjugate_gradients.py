"""Homework 6: conjugate gradients.

iMAML solves (I + H/lambda) u = grad g without the matrix: `product(v)` is all that the
solver may ask for. Write the step length, the new residual and the new direction.

    refmaml check solve docs/homework/conjugate_gradients.py:product

Question: the matrix is 6 x 6. Why are six steps enough, and why are fewer so often?
"""

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
        a = ...
        found = found + a * p
        new = ...
        p = ...
        r = new
    return found
