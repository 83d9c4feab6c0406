"""The SVM's dual at the point where another interior-point method stops.

`svm_solver.py` has the dual, and a method that keeps its sums and bounds. The method
here is that of OptNet's code. It starts outside the bounds, and takes one step length
for slacks and multipliers. R = Z + S - c Y is its residual of the bounds. A step is

    (K + diag(D_j)) dZ_j + nu = -rx_j + rs_j - D_j R_j       D = Lam/S
    rows of dZ sum to 0,   dS = -R - dZ,   dLam = -rs - D dS

with rx = K Z - Y + nu + Lam and rs = Lam, plus the same system with rx = R = 0 and
rs = (dS dLam - sigma mu)/S, which corrects it to second order.

Stopped early, the code differentiates the point as an optimum: with the D that it has.
Source: Amos & Kolter 2017 (OptNet), qpth 0.0.18; Mattingley & Boyd 2012, section 5.
"""

import numpy as np

from refmaml.methods.svm_head import gram
from refmaml.methods.svm_solver import gram_times, kkt, length, mean
from refmaml.methods.symmetric_solves import transposed_times

SHORT = 0.999  # of the way to the next bound
EPS = 1e-12  # of the residuals
LEAST = 1e-8  # of S and Lam in the derivative


def stopped(k, solved, Y, cost, iterations):
    """The Dual of SVMHead after so many iterations of OptNet's code (its maxIter).

    An iteration judges its point before it steps on: the last step is not taken, and
    none after a task's residuals are below EPS.
    """
    K = gram(k, solved.X, solved.strength)
    now = start(k, K, Y, cost)
    for _ in range(iterations - 1):
        ends = residual(K, Y, cost, *now) < EPS
        if ends.all():
            break
        with np.errstate(all="ignore"):  # of tasks that have ended
            after = after_step(k, K, Y, cost, *now)
        now = [np.where(ends, a, b) for a, b in zip(now, after, strict=True)]
    Z, S, Lam, _ = now
    system = kkt(k, K, np.maximum(Lam, LEAST) / np.maximum(S, LEAST))
    W = transposed_times(k, Z, solved.X)
    return solved._replace(Z=Z, W=W, system=system, mu=mean(S * Lam)[:, 0, 0])


def start(k, K, Y, cost):
    """Z, S, Lam (T, N, C), nu (T, N, 1): the optimum without bounds but |S|^2/2.

    Where an S or a Lam is negative, all of the task rise: the least becomes 1.
    """
    system = kkt(k, K, np.ones(K.shape[:2] + Y.shape[2:]))
    right = Y + cost * Y
    Z = system.solve(right)
    nu = free_multiplier(right - (gram_times(K, Z) + Z))
    S = cost * Y - Z
    return Z, risen(S), risen(-S), nu


def risen(a):
    """a, or a + 1 - min(a) in tasks where min(a) < 0."""
    least = a.min(axis=(1, 2), keepdims=True)
    return np.where(least < 0, a + 1 - least, a)


def residual(K, Y, cost, Z, S, Lam, nu):
    """|Z + S - c Y| + |rx| + <S, Lam> of each task, (T, 1, 1)."""
    norms = [norm(Z + S - cost * Y), norm(gram_times(K, Z) - Y + nu + Lam)]
    return sum(norms) + (S * Lam).sum(axis=(1, 2), keepdims=True)


def norm(a):
    return np.sqrt((a * a).sum(axis=(1, 2), keepdims=True))


def after_step(k, K, Y, cost, Z, S, Lam, nu):
    """The point after one step."""
    D, R = Lam / S, Z + S - cost * Y
    system = kkt(k, K, D)
    rx, mu = gram_times(K, Z) - Y + nu + Lam, mean(S * Lam)

    def direction(rx, rs, R):
        right = -rx + rs - D * R
        dZ = system.solve(right)
        dS = -R - dZ
        return dZ, dS, -rs - D * dS, free_multiplier(right - gram_times(K, dZ) - D * dZ)

    first = direction(rx, Lam, R)
    _, dS, dLam, _ = first
    t = np.minimum(length(np, S, dS, 1.0), length(np, Lam, dLam, 1.0))
    sigma = (mean((S + t * dS) * (Lam + t * dLam)) / mu) ** 3
    second = direction(0 * rx, (dS * dLam - sigma * mu) / S, 0 * R)
    dZ, dS, dLam, dnu = (a + b for a, b in zip(first, second, strict=True))
    t = np.minimum(length(np, S, dS, SHORT), length(np, Lam, dLam, SHORT))
    return Z + t * dZ, S + t * dS, Lam + t * dLam, nu + t * dnu


def free_multiplier(residual):
    """nu (T, N, 1), which is in each column of a residual (T, N, C)."""
    return residual.mean(axis=2, keepdims=True)
