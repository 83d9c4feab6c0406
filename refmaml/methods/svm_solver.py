"""The dual of the multi-class support vector machine, by an interior-point method.

For each task, with the Gram matrix K = X X' + lambda I (N, N) and labels Y (N, C):

    min 1/2 <Z, K Z> - <Y, Z>     Z (N, C) <= c Y entry by entry,  each row sums to 0

With slacks S = c Y - Z, multipliers Lam of the bounds and nu (N,) of the sums, the
optimum solves

    K Z - Y + nu + Lam = 0,   S Lam = 0,   S >= 0,  Lam >= 0       (nu in each column)

Newton's method on this with S Lam = mu, mu -> 0, eliminates Lam. A step dZ solves

    (K + diag(D_j)) dZ_j + nu = r_j  for each class j,   rows of dZ sum to 0,  D = Lam/S

The classes meet in nu alone: with T_j = (K + diag(D_j))^-1, nu = (sum_j T_j)^-1 sum_j
T_j r_j and dZ_j = T_j (r_j - nu). The start Z = c/2 (Y - 1/C) is inside all bounds, and
every step keeps the sums. Each iteration takes a step for mu = 0, sees how much of it
the bounds allow, and chooses the mu of its real step by that.

Sources: Crammer & Singer 2001, the dual; Mehrotra 1992, the choice of mu.
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.layers.layer import Array
from refmaml.methods.symmetric_solves import cholesky, identity, substitute

SHORT = 0.99  # of the way to the next bound


class KKT(NamedTuple):
    """The linear system of one point, factorised.

    inverses  T_j of every class, (T, C, N, N)
    factor    of their sum, (T, N, N)
    """

    inverses: Array
    factor: Array

    def solve(self, r: Array) -> Array:
        """dZ (T, N, C) of r (T, N, C)."""
        rows = r.swapaxes(1, 2)
        p = (self.inverses * rows[:, :, None]).sum(axis=3)  # (T, C, N)
        nu = substitute(self.factor, p.sum(axis=1)[:, None])  # (T, 1, N)
        dZ = p - (self.inverses * nu[:, :, None]).sum(axis=3)
        return dZ.swapaxes(1, 2)


def kkt(k: Any, K: Array, D: Array) -> KKT:
    """The system of K (T, N, N) and D (T, N, C)."""
    T, N, C = D.shape
    eye = identity(k, N, K.real.dtype)
    systems = K[:, None] + D.swapaxes(1, 2)[..., None] * eye
    factors = cholesky(k.xp, systems.reshape(T * C, N, N))
    rows = k.xp.ascontiguousarray(k.xp.broadcast_to(eye, (T * C, N, N)))
    inverses = substitute(factors, rows).reshape(T, C, N, N)
    return KKT(inverses, cholesky(k.xp, inverses.sum(axis=1)))


class Optimum(NamedTuple):
    """Z (T, N, C), the KKT system there, and mu (T,), 0 at the optimum."""

    Z: Array
    system: KKT
    mu: Array


def solve(k: Any, K: Array, Y: Array, cost: float, steps: int) -> Optimum:
    """The optimum after so many iterations, for all tasks side by side."""
    xp, C = k.xp, Y.shape[2]
    bounds = cost * Y
    Z = cost / 2 * (Y - 1 / C) + 0 * K[:, :, :1]
    S, Lam = bounds - Z, xp.full(Y.shape, cost, Y.dtype)
    least = np.finfo(Y.dtype).eps ** 2 * cost**2  # mu stays above: S and Lam stay above 0
    for _ in range(steps):
        system = kkt(k, K, Lam / S)
        r = Y - gram_times(K, Z)
        mu = mean(S * Lam)
        dZ = system.solve(r)
        dLam = -Lam + Lam * dZ / S
        t = length(xp, S, -dZ), length(xp, Lam, dLam)
        after = mean((S.real - t[0] * dZ.real) * (Lam.real + t[1] * dLam.real))
        goal = mu * (after / mu.real) ** 3
        goal = xp.where(goal.real > least, goal, least)
        corrected = goal + dZ * dLam  # S Lam = mu to second order: dS dLam = -dZ dLam
        dZ = system.solve(r - corrected / S)
        dLam = corrected / S - Lam + Lam * dZ / S
        t = length(xp, S, -dZ), length(xp, Lam, dLam)
        S, Lam = S - t[0] * dZ, Lam + t[1] * dLam
        Z = bounds - S
    return Optimum(Z, kkt(k, K, Lam / S), mean(S * Lam)[:, 0, 0])


def gram_times(K: Array, Z: Array) -> Array:
    """K Z (T, N, C)."""
    return (K[..., None] * Z[:, None]).sum(axis=2)


def mean(a: Array) -> Array:
    """The mean over a task's entries, (T, 1, 1)."""
    return a.reshape(len(a), -1).sum(axis=1)[:, None, None] / (a.shape[1] * a.shape[2])


def length(xp: Any, a: Array, da: Array, short: float = SHORT) -> Array:
    """The step t (T, 1, 1), at most 1, which goes `short` of the way to a + t da = 0.

    It compares real parts.
    """
    a, da = a.real, da.real
    reach = xp.where(da < 0, -short * a / xp.where(da < 0, da, -1), 1)
    shortest = reach.reshape(len(a), -1).min(axis=1)[:, None, None]
    return xp.where(shortest < 1, shortest, 1).astype(a.dtype)
