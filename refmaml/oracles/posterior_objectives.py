"""Variational objectives with a query loss: q near theta explains the support set.

    q*(theta) = argmin_q KL(q | N(theta, I/lambda)) + E_q f

With g = f the minimum itself is the objective, and its derivative is lambda (theta - E
q*): q* is stationary, so nothing is differentiated through it (the envelope theorem).
With another loss in the outer objective that is no longer so:

    point      J = g(phi*) + (lambda/2) |phi* - theta|^2
               dJ/dtheta = lambda (theta - phi*) + lambda (H + lambda)^-1 (g' - f')
    Gaussian   J = E_q* g,  q* = N(m, s^2)
               dJ/dtheta = (E g', E g' xi) Z^-1 (lambda, 0)'

H, f' and g' are taken at phi*, where f' = lambda (theta - phi*); xi is N(0, 1), w = m +
s xi; and Z is the second derivative of the free energy in (m, s),

    Z = ((lambda + E f'', E f'' xi), (E f'' xi, lambda + 1/s^2 + E f'' xi^2))

Sources: Rajeswaran, Finn, Kakade, Levine 2019, lemma 1 (the point); Opper & Archambeau
2009 (the Gaussian).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.imaml import IMAML
from refmaml.oracles.anchor_objectives import NODES, evaluated
from refmaml.scalar import ScalarFunction


class PointObjective(NamedTuple):
    """J, the mean over tasks, and its gradient (P,)."""

    value: float
    grad: Array


def point_objective(net: Any, method: IMAML, theta: Array, batch: Batch) -> PointObjective:
    """g(phi*) + (lambda/2) |phi* - theta|^2 and its derivative, by iMAML's two solves.

    The system (I + H/lambda) u = r is linear: its solution for r = g' - f' is the
    difference of iMAML's gradients with the query set and with the support set behind
    it.
    method  IMAML with a solver that reaches phi*; every parameter adapts
    Raises ArgumentError, NonFiniteError.
    """
    all_adapt = method.adapts == ("*",) and not method.frozen
    expect(all_adapt, "method", "one in which every parameter adapts", lambda: repr(method))
    support = Batch(batch.x_support, batch.y_support, batch.x_support, batch.y_support)
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    outer, inner = (method.meta_gradient(net, theta, b) for b in (batch, support))
    far = phi - theta
    penalty = method.regularization / 2 * (far**2).sum(axis=1).mean()
    pull = -method.regularization * far.mean(axis=0)
    return PointObjective(float(outer.loss + penalty), pull + outer.grad - inner.grad)


class GaussianObjective(NamedTuple):
    """J = E_q* g with q* = N(mean, deviation^2), and dJ/dtheta."""

    value: float
    mean: float
    deviation: float
    gradient: float


def gaussian_objective(
    net: ScalarFunction, theta: Any, support: Array, query: Array, strength: float,
    start: tuple = (None, None), steps: int = 60,
) -> GaussianObjective:  # fmt: skip
    """J in one dimension: q* by Newton's method, then the formula above.

    support, query  inputs (1, ...) of one task; the net's functions tell f from g by
                    them
    start           (m, s) from which Newton's method runs; None: theta, lambda^-1/2. It
                    finds a stationary point near them: where F has several minima,
                    start at the one that is meant, for instance at that of
                    `variational_objective`
    theta may be complex, as the complex step needs it.
    """
    weights = norm.pdf(NODES)
    weights = weights / weights.sum()

    def mean_of(name: str, x: Array, m: Any, s: Any, power: int = 0) -> Any:
        return weights @ (NODES**power * at_points(net, name, m + s * NODES, x))

    m = theta if start[0] is None else start[0]
    s = strength**-0.5 if start[1] is None else start[1]
    for k in range(steps + 1):
        curved, skewed, wide = (mean_of("ddf", support, m, s, power) for power in range(3))
        Z = np.array([[strength + curved, skewed], [skewed, strength + 1 / s**2 + wide]])
        if k == steps:
            break
        in_m = strength * (m - theta) + mean_of("df", support, m, s)
        in_s = strength * s - 1 / s + mean_of("df", support, m, s, 1)
        m, s = np.array([m, s]) - np.linalg.solve(Z, np.array([in_m, in_s]))
    slopes = np.array([mean_of("df", query, m, s, power) for power in range(2)])
    gradient = slopes @ np.linalg.solve(Z, np.array([strength, 0.0]))
    return GaussianObjective(mean_of("f", query, m, s), m, s, gradient)


def at_points(net: ScalarFunction, name: str, w: Array, x: Array) -> Array:
    """f, df or ddf at the points w (S,), real or complex."""
    if np.iscomplexobj(w):
        return net.value(name, w[:, None], np.repeat(x, len(w), axis=0))
    return evaluated(net, name, w, x)
