"""The inner problem of iMAML, argmin_phi F(phi) = f(phi) + (lambda/2) |phi - theta|^2.

gradient_descent.py and newton_cg.py are its solvers. Both move only the parameters
that adapt (`mask`, 1 or 0 for each), start from theta, and return phi (T, P), the pass
there, and the relative residual |grad F| / |lambda (phi - theta)| of every task: 0 at a
stationary point, 1 where the proximal term has no effect yet. They hold one pass at a
time, so memory does not grow with their steps.
"""

from typing import Any

import numpy as np

from refmaml.layers.layer import Array
from refmaml.methods.conjugate_gradients import dot, quotient

Solved = tuple[Array, Any, Array]  # phi, the pass at phi, the relative residual


def objective_gradient(
    primal: Any, phi: Array, theta: Array, strength: float, mask: Array
) -> Array:
    """grad F = grad f + lambda (phi - theta), on the parameters that adapt."""
    return mask * (primal.grad + strength * (phi - theta))


def relative_residual(
    kernels: Any, gradient: Array, phi: Array, theta: Array, strength: float
) -> Array:
    """|grad F| / |lambda (phi - theta)|; 0 / 0 counts as 0, a / 0 as infinite."""
    xp = kernels.xp
    scale = strength * xp.sqrt(dot(kernels, phi - theta, phi - theta))
    size = xp.sqrt(dot(kernels, gradient, gradient))
    infinite = size.dtype.type(np.inf)
    ratio = quotient(xp, size, scale, scale > 0)
    return xp.where((scale > 0) | ~(size > 0), ratio, infinite)


def solved(residual: Array, k: int, method: Any) -> Array:
    """Which tasks stand still from inner step k on; theta itself is not a solution."""
    return (residual <= method.inner_tol) & (k > 0)
