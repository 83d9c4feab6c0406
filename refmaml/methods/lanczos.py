"""Lanczos' method: functions of a symmetric matrix, times a vector.

m products of H (n, n), from q_1 = z/|z|, with every earlier q taken off twice:

    H q_j = b_{j-1} q_{j-1} + a_j q_j + b_j q_{j+1}         H Q = Q T + b_m q_{m+1} e_m'

T (m, m) is tridiagonal with eigenvalues h_i and eigenvectors s_i. A function of H is
then approximated by one of T, exactly where m = n or where b_m = 0:

    z' phi(H) z = |z|^2 sum_i s_i1^2 phi(h_i)
    phi(H) z    = |z| Q sum_i s_i s_i1 phi(h_i)

For phi(h) = 1/(h + tau) this is the iterate of conjugate gradients, and its residual
needs no further product: (H + tau) u - z = |z| b_m y_m q_{m+1}, u = |z| Q y.

Many vectors run side by side, each with a matrix of its own. One that has reached an
invariant subspace, b_j = 0, goes on with q = 0. T then has a_1 in place of a_j, which
counts nowhere, as its s has s_1 = 0, and lies between the eigenvalues of H.
Sources: Lanczos 1950; Golub and Meurant 1994 (quadrature); Ubaru, Chen, Saad 2017 (log
det by probes).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# b_j below this multiple of max |T| is rounding: the subspace is invariant.
ROUNDING = 1e3 * np.finfo(float).eps


class Lanczos(NamedTuple):
    """Of R vectors: Q (m, R, n), h (R, m), s (R, m, m), |z| (R,), b_m (R,)."""

    basis: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    norm: np.ndarray
    last: np.ndarray

    def quadratic_form(self, function: Callable) -> np.ndarray:
        """z' phi(H) z (R,)."""
        return self.norm**2 * (self.vectors[:, 0] ** 2 * function(self.values)).sum(axis=1)

    def solve(self, shift: float) -> tuple[np.ndarray, np.ndarray]:
        """u (R, n) for (H + shift I)^-1 z, and |(H + shift I) u - z| (R,)."""
        weights = self.vectors[:, 0] / (self.values + shift)
        y = self.norm[:, None] * np.einsum("rij,rj->ri", self.vectors, weights)
        return np.einsum("mrn,rm->rn", self.basis, y), abs(self.last * y[:, -1])


def lanczos(product: Callable[[np.ndarray], np.ndarray], z: np.ndarray, steps: int) -> Lanczos:
    """`steps` products from z (R, n); product: rows v (R, n) to rows H v."""
    norm = np.sqrt((z * z).sum(axis=1))
    q, basis, T = z / norm[:, None], [], np.zeros((len(z), steps, steps))
    b = np.zeros(len(z))
    for j in range(steps):
        basis.append(q)
        r = product(q)
        on = (q * q).sum(axis=1) > 0
        T[:, j, j] = np.where(on, (r * q).sum(axis=1), T[:, 0, 0])
        for _ in range(2):  # once is not enough where digits cancel
            for earlier in basis:
                r = r - (r * earlier).sum(axis=1, keepdims=True) * earlier
        b = np.sqrt((r * r).sum(axis=1))
        b = np.where(b > ROUNDING * abs(T).max(axis=(1, 2)), b, 0.0)
        q = np.where(b[:, None] > 0, r / np.where(b > 0, b, 1)[:, None], 0.0)
        if j + 1 < steps:
            T[:, j, j + 1] = T[:, j + 1, j] = b
    return Lanczos(np.array(basis), *np.linalg.eigh(T), norm, b)
