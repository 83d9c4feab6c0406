"""log det(H + tau I) of the support loss, and its gradient by third derivatives.

H (n, n) is the Hessian of f at phi (P,), in the n parameters that adapt; tau is the
precision of a Gaussian prior. Differentiate along phi_j, with A = (H + tau I)^-1:

    L = log det(H + tau I)        dL/dphi_j = tr(A dH/dphi_j) = sum_ik A_ik f_ijk
    dL/dphi = sum_i D^3 f[e_i, A e_i]

D^3 f[u, v] is the derivative of H v along u. The existing product gives it without a
rounding error of its own, by the complex step: Im H(phi + i h u) v / h.

Two ways to the sum. `by_basis` has H itself: n products, its eigenvalues, and n complex
products. `by_probes` has vectors z of signs, E z z' = I (Hutchinson 1990):

    L = E z' log(H + tau I) z     dL/dphi = E D^3 f[z, A z]

Lanczos' method gives log(H + tau I) z and A z from the same m products. Both
estimates are unbiased in z where m is large enough: see `residual`.

Where H + tau I has an eigenvalue that is not positive, f + (tau/2) |phi - c|^2 has no
minimum there, and no Gaussian stands for the posterior. This is an error, and not a
number that a clamped determinant would give.

All of it is float64 on the reference kernels, whatever the net's own are: the complex
step needs complex numbers, and a determinant loses digits in float32.
Sources: Grant, Finn, Levine, Darrell, Griffiths 2018 (LLAMA), section 3.2: the term in
the meta-objective; Squire and Trapp 1998: the complex step. The derivative is derived
here.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from refmaml.errors import NonFiniteError
from refmaml.kernels.reference_set import reference
from refmaml.layers.layer import Array
from refmaml.methods.lanczos import lanczos

ROWS = 64  # products that run side by side
STEP = 1e-30  # of the complex step: its square vanishes beside 1


class LogDeterminant(NamedTuple):
    """L (T,), dL/dphi (T, P), and {name: (T,)} for the report."""

    value: np.ndarray
    gradient: np.ndarray
    report: dict


class Curvature(NamedTuple):
    """The support loss of T tasks at phi (T, P), all in float64 on the host.

    places  (n,) the entries of phi that adapt
    """

    net: Any
    phi: np.ndarray
    x: np.ndarray
    y: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, net: Any, phi: Array, x: Array, y: Array, adapting: Array) -> "Curvature":
        """The same loss on the reference kernels; adapting (P,) is 0 where none is."""
        to_host = net.kernels.to_host
        plain = net.with_kernels(reference()) if hasattr(net, "with_kernels") else net
        phi, x, y = (np.asarray(to_host(a)) for a in (phi, x, y))
        phi, x, y = (a.astype(np.float64) if a.dtype.kind == "f" else a for a in (phi, x, y))
        phi = np.broadcast_to(phi, (len(x), phi.shape[1]))
        return cls(plain, phi, x, y, np.flatnonzero(to_host(adapting)))

    def products(self, tasks: np.ndarray, u: np.ndarray) -> np.ndarray:
        """H u of some tasks (R,), a row u (R, n) for each: (R, n)."""
        primal = self.net.primal(self.phi[tasks], self.x[tasks], self.y[tasks])
        return self.net.hvp(primal, self.spread(u))[:, self.places]

    def third(self, tasks: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """D^3 f[u, v] of some tasks (R,), rows u, v (R, n): (R, P)."""
        shifted = self.phi[tasks] + 1j * STEP * self.spread(u)
        primal = self.net.primal(shifted, self.x[tasks], self.y[tasks])
        return self.net.hvp(primal, self.spread(v).astype(complex)).imag / STEP

    def spread(self, u: np.ndarray) -> np.ndarray:
        """Rows u (R, n) as rows (R, P), 0 where nothing adapts."""
        out = np.zeros((len(u), self.phi.shape[1]))
        out[:, self.places] = u
        return out

    def hessian(self) -> np.ndarray:
        """H (T, n, n): a product with each basis vector."""
        n = len(self.places)
        H = np.empty((len(self.x), n, n))
        for tasks, i in pairs(len(H), n):
            H[tasks, i] = self.products(tasks, np.eye(n)[i])
        return H


def pairs(T: int, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All (t, i), t < T and i < n, some at a time: two index arrays."""
    for first in range(0, T * n, ROWS):
        yield np.divmod(np.arange(first, min(first + ROWS, T * n)), n)


def by_basis(curvature: Curvature, precision: float) -> LogDeterminant:
    """L and dL/dphi from H itself."""
    T, n = len(curvature.x), len(curvature.places)
    values, vectors = np.linalg.eigh(curvature.hessian())
    shifted = values + precision
    expect_positive(shifted[:, 0])
    A = (vectors / shifted[:, None]) @ vectors.swapaxes(1, 2)
    gradient = np.zeros(curvature.phi.shape)
    for tasks, i in pairs(T, n):
        np.add.at(gradient, tasks, curvature.third(tasks, np.eye(n)[i], A[tasks, i]))
    return LogDeterminant(np.log(shifted).sum(axis=1), gradient, {})


def by_probes(
    curvature: Curvature, precision: float, probes: int, steps: int, seed: int
) -> LogDeterminant:
    """Estimates of L and dL/dphi, with signs from `seed`: the same in every task.

    steps  products of Lanczos' method; n of them are enough for every H
    The report has `laplace_residual`: max over probes of |(H + tau I) u - z| / |z| for
    the u in place of A z.
    """
    T, n = len(curvature.x), len(curvature.places)
    signs = 2.0 * np.random.default_rng(seed).integers(0, 2, (probes, n)) - 1
    tasks, i = np.divmod(np.arange(T * probes), probes)
    z = signs[i]
    found = lanczos(lambda v: curvature.products(tasks, v), z, min(steps, n))
    least = (found.values[:, 0] + precision).reshape(T, probes).min(axis=1)
    expect_positive(least)
    L = found.quadratic_form(lambda h: np.log(h + precision))
    u, residual = found.solve(precision)
    rows = curvature.third(tasks, z, u).reshape(T, probes, -1)
    residual = (residual / np.sqrt(n)).reshape(T, probes).max(axis=1)
    means = L.reshape(T, probes).mean(axis=1), rows.mean(axis=1)
    return LogDeterminant(*means, {"laplace_residual": residual})


def expect_positive(least: np.ndarray) -> None:
    """Raise NonFiniteError unless the least eigenvalues (T,) of H + tau I are > 0."""
    bad = ~(least > 0)
    if bad.any():
        task = int(bad.argmax())
        raise NonFiniteError(
            "support set: log det(H + tau I): expected positive eigenvalues, got "
            f"{least[task]:.3g} (a larger precision, or curvature='kronecker')",
            task,
        )
