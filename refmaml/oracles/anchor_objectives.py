"""Objectives for iMAML's anchor in one dimension: with noise, and with a distribution.

F(w) = f(w) + (lambda/2) (w - theta_0)^2 has one or many minima w_i. Two objectives take
more than one of them into account:

    S = E f(w_i)    the inner solver descends from theta_0 + sigma N(0, 1) into the
                    minimum of its basin; basins meet at the maxima of F
    V = min over q of KL(q | N(theta_0, 1/lambda)) + E_q f,  q = N(m, s^2)

They are exact: S by the normal distribution between the maxima, V by the trapezoidal
rule, whose error falls exponentially for smooth f. S jumps where a minimum appears or
disappears; its derivative is that between such places. Sources: Rajeswaran, Finn,
Kakade, Levine 2019 (the anchor); Opper and Archambeau 2009 (the gradients of E_q f).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from refmaml.errors import expect
from refmaml.scalar import ScalarFunction

CELLS = 4000  # of the interval in which stationary points are looked for
# The nodes of the quadrature in standard deviations: the density is 2e-22 at the ends,
# and functions as narrow as a tenth of a deviation are resolved to rounding.
NODES = np.linspace(-10, 10, 801)


class Stochastic(NamedTuple):
    """S and its derivative in theta_0.

    value          S = sum p_i f(w_i)
    moving         sum p_i f'(w_i) dw_i/dtheta_0: the solutions move; iMAML's gradient
    choosing       sum dp_i/dtheta_0 f(w_i): their probabilities change
    solutions      w_i, the minima of F in ascending order
    probabilities  p_i
    """

    value: float
    moving: float
    choosing: float
    solutions: np.ndarray
    probabilities: np.ndarray


class Variational(NamedTuple):
    """V, its q = N(mean, deviation^2), and dV/dtheta_0 = lambda (theta_0 - mean)."""

    value: float
    mean: float
    deviation: float
    gradient: float


def evaluated(net: ScalarFunction, name: str, w: Any, x: np.ndarray) -> np.ndarray:
    """f, df or ddf at the points w (S,), for the inputs x (1, ...) of one task."""
    w = np.atleast_1d(np.asarray(w, float))
    return net.value(name, w[:, None], np.repeat(x, len(w), axis=0))


def stationary_points(
    net: ScalarFunction, x: np.ndarray, anchor: float, strength: float, interval: tuple
) -> tuple[np.ndarray, np.ndarray]:
    """The minima and the maxima of F in an interval (low, high), ascending.

    F must fall at `low` and rise at `high`. Two that lie closer together than 1/4000 of
    the interval are not found. Raises ArgumentError.
    """

    def slope(w: Any) -> np.ndarray:
        return evaluated(net, "df", w, x) + strength * (np.atleast_1d(w) - anchor)

    grid = np.linspace(*interval, CELLS + 1)
    rising = slope(grid) > 0
    falls = not rising[0] and rising[-1]
    expect(falls, "interval", "one at whose ends F falls and rises", repr(interval))
    cells = np.flatnonzero(rising[1:] != rising[:-1])
    roots = [brentq(lambda w: slope(w)[0], *grid[i : i + 2], xtol=1e-15) for i in cells]
    return np.array(roots[::2]), np.array(roots[1::2])


def stochastic_objective(
    net: ScalarFunction,
    anchor: float,
    x: np.ndarray,
    strength: float,
    sigma: float,
    interval: tuple,
) -> Stochastic:
    """S at one anchor.

    net       f, with its two derivatives
    x         the inputs (1, ...) of one task
    strength  lambda > 0; sigma > 0
    interval  where the stationary points of F are: see stationary_points
    Raises ArgumentError.
    """
    minima, maxima = stationary_points(net, x, anchor, strength, interval)

    def follows(w: np.ndarray) -> np.ndarray:
        return 1 / (1 + evaluated(net, "ddf", w, x) / strength) if len(w) else w

    z = (maxima - anchor) / sigma
    below = np.concatenate([[0.0], norm.cdf(z), [1.0]])
    change = np.concatenate([[0.0], norm.pdf(z) * (follows(maxima) - 1) / sigma, [0.0]])
    p, value = np.diff(below), evaluated(net, "f", minima, x)
    slopes = evaluated(net, "df", minima, x) * follows(minima)
    return Stochastic(
        float(p @ value), float(p @ slopes), float(np.diff(change) @ value), minima, p
    )


def free_energy(
    net: ScalarFunction, anchor: float, x: np.ndarray, strength: float, mean: float, s: float
) -> tuple[float, float, float]:
    """KL(N(mean, s^2) | N(theta_0, 1/lambda)) + E f; its derivatives in mean and s."""
    weights = norm.pdf(NODES)
    weights = weights / weights.sum()
    f, df, ddf = (weights @ evaluated(net, name, mean + s * NODES, x) for name in net.functions)
    ratio, far = strength * s * s, mean - anchor
    value = 0.5 * (ratio + strength * far**2 - 1 - np.log(ratio)) + f
    return float(value), float(strength * far + df), float((strength + ddf) * s - 1 / s)


def variational_objective(
    net: ScalarFunction, anchor: float, x: np.ndarray, strength: float, steps: int = 400
) -> Variational:
    """V at one anchor: the minimum that natural gradient descent finds from the prior.

    The precision follows lambda + E f''; the mean follows -(E f' + lambda (m -
    theta_0)) over the precision. Where V has many minima, this is one of them.
    """
    mean, precision, rate = anchor, strength, 0.2
    for _ in range(steps):
        s = precision**-0.5
        _, in_mean, in_s = free_energy(net, anchor, x, strength, mean, s)
        target = in_s / s + precision  # lambda + E f''
        precision = max(precision + rate * (target - precision), precision / 2)
        mean -= rate * in_mean / precision
    s = precision**-0.5
    value, *_ = free_energy(net, anchor, x, strength, mean, s)
    return Variational(value, mean, s, strength * (anchor - mean))
