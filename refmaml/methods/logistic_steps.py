"""The length of a Newton step of the logistic head, class by class.

f(t) is the objective at W - t D, D = G H^-1. In full steps it may rise, and repeated
full steps may run in a cycle. The length is the first of 1, 1/2, 1/4, 1/8 that lowers
it, f(t) <= f(0) - t/10^4 <G, D>, else one that does so for certain. Along D the second
derivative grows by at most e^(rho t), rho = max_n |x_n D|, since |dS/dZ| <= S. With
f'(0) = -<G, D> = -f''(0) the bound

    f(t) <= f(0) + f''(0) [(e^(rho t) - rho t - 1)/rho^2 - t]

is least at t = log(1 + rho)/rho, and below f(0) there. Near the optimum t is 1, where
the convergence is quadratic; f(0) gets some roundings on top, as its differences have
no digits there.

Sources: Armijo 1966; the certain length: Sun & Tran-Dinh 2019 (generalised
self-concordant functions of order 2).
"""

from typing import Any

import numpy as np

from refmaml.layers.layer import Array
from refmaml.layers.logistic import softplus
from refmaml.methods.symmetric_solves import times_transposed

LENGTHS = (0.125, 0.25, 0.5, 1.0)
ARMIJO, ROUNDINGS = 1e-4, 4


def step_length(k: Any, here: Any, Y: Array, D: Array) -> Array:
    """t (T, C, 1) of the step W - t D, from the real parts of all numbers.

    here  the LogisticHead's Optimum at W; Y (T, N, C); D (T, C, F)
    """
    xp, W, strength, D = k.xp, here.W.real, here.strength.real, D.real
    Z, E = (times_transposed(k, here.X.real.copy(), a) for a in (W.copy(), D.copy()))

    def objective(t: Any) -> Array:  # (T, C)
        z, w = Z - t * E, W - t * D
        return (softplus(xp, z) - Y * z).sum(axis=1) + strength / 2 * (w * w).sum(axis=2)

    now, slope = objective(0), (here.G.real * D).sum(axis=2)
    now = now * (1 + ROUNDINGS * np.finfo(now.dtype).eps)
    rho = abs(E).max(axis=1)
    t = xp.log1p(rho) / xp.where(rho > 0, rho, 1)
    for length in LENGTHS:
        lower = objective(length) <= now - ARMIJO * length * slope
        t = xp.where(lower, now.dtype.type(length), t)
    return t[..., None]
