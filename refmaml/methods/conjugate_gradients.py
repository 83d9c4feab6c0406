"""Conjugate gradients for many symmetric positive definite systems at once, with an honest word on how each ended."""
from typing import NamedTuple

import numpy as np

from refmaml.errors import expect

CONVERGED, MAXITER, NEGATIVE_CURVATURE, BREAKDOWN, NONFINITE = STATUSES = (
    "converged", "maxiter", "negative_curvature", "breakdown", "nonfinite")


class Solution(NamedTuple):
    """x (T, P); residuals: |b - A x| after 0, 1, ... iterations, (iterations + 1, T); status and iterations of each system (T,).

    converged            |r| <= tol |b|
    maxiter              not yet, and no iteration left
    negative_curvature   a direction with p' A p < 0: A is not positive definite; x is the last iterate before it
    breakdown            p' A p = 0 with r not yet small: A is singular along p; x is the last iterate
    nonfinite            NaN or infinity in b or in a product; x is the last finite iterate
    """
    x: np.ndarray
    residuals: np.ndarray
    status: np.ndarray
    iterations: np.ndarray


def dot(a, b):
    """Row by row <a, b>, (T,)."""
    return np.einsum("tp,tp->t", a, b)


def conjugate_gradients(product, b, maxiter, tol=1e-10):
    """Solve A x = b for each row, with product(v) = A v row by row; b (T, P).

    x_0 = 0, r_0 = p_0 = b;  a_k = |r_k|^2 / p_k'A p_k,  x_{k+1} = x_k + a_k p_k,  r_{k+1} = r_k - a_k A p_k,
    p_{k+1} = r_{k+1} + (|r_{k+1}|^2 / |r_k|^2) p_k.        Hestenes & Stiefel 1952, eq. 3:1a-f.

    A finished system stands still while the others go on. maxiter >= 0; tol: relative to |b|.
    """
    expect(b.ndim == 2, "b", "shape (tasks, P)", f"{b.shape}")
    expect(maxiter >= 0, "maxiter", "an integer >= 0", repr(maxiter))
    x, r, p = np.zeros_like(b), b.copy(), b.copy()
    rr, goal = dot(r, r), (tol * np.sqrt(dot(b, b)))
    residuals, iterations = [np.sqrt(rr)], np.zeros(len(b), int)
    status = np.full(len(b), MAXITER, "<U18")
    status[~np.isfinite(rr)] = NONFINITE
    status[np.sqrt(rr) <= goal] = CONVERGED
    for _ in range(maxiter):
        active = status == MAXITER
        if not active.any():
            break
        Ap = product(p)
        curvature = dot(p, Ap)
        fail(status, active & ~np.isfinite(curvature), NONFINITE)
        fail(status, active & (curvature < 0), NEGATIVE_CURVATURE)
        fail(status, active & (curvature == 0), BREAKDOWN)
        active = status == MAXITER
        a = np.divide(rr, curvature, out=np.zeros_like(rr), where=active)[:, None]
        on = active[:, None]
        x = np.where(on, x + a * p, x)
        r = np.where(on, r - a * Ap, r)
        new = dot(r, r)
        beta = np.divide(new, rr, out=np.zeros_like(rr), where=active)[:, None]
        p, rr = np.where(on, r + beta * p, p), np.where(active, new, rr)
        iterations += active
        residuals.append(np.sqrt(rr))
        status[active & (residuals[-1] <= goal)] = CONVERGED
    return Solution(x, np.array(residuals), status, iterations)


def fail(status, where, reason):
    """Mark systems as ended for a reason."""
    status[where] = reason
