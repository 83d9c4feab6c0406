"""Conjugate gradients for many symmetric positive definite systems at once, with an honest word on how each ended."""

from typing import NamedTuple

import numpy as np

from refmaml.errors import expect
from refmaml.kernels import reference

STATUSES = np.array(["converged", "maxiter", "negative_curvature", "breakdown", "nonfinite"])
CONVERGED, MAXITER, NEGATIVE_CURVATURE, BREAKDOWN, NONFINITE = range(len(STATUSES))
REFERENCE = reference()


class Solution(NamedTuple):
    """x (T, P); residuals: |b - A x| after 0, 1, ... iterations, (iterations + 1, T); status and iterations of each system (T,).

    converged            |r| <= tol |b|
    maxiter              not yet, and no iteration left
    negative_curvature   a direction with p' A p < 0: A is not positive definite; x is the last iterate before it
    breakdown            p' A p = 0 with r not yet small: A is singular along p; x is the last iterate
    nonfinite            NaN or infinity in b, in a product or in their squares; x is the last finite iterate
    """

    x: np.ndarray
    residuals: np.ndarray
    status: np.ndarray
    iterations: np.ndarray


def dot(kernels, a, b):
    """Row by row <a, b>, (T,)."""
    out = kernels.empty((len(a), 1), np.result_type(a.dtype, b.dtype))
    kernels.vector_dot(out, a, b)
    return out[:, 0]


def quotient(xp, a, b, where):
    """a / b where that is to be had, 0 elsewhere."""
    with np.errstate(all="ignore"):  # what overflows is found by who goes on with it
        return xp.where(where, a / xp.where(where, b, b.dtype.type(1)), b.dtype.type(0))


def conjugate_gradients(product, b, maxiter, tol=1e-10, kernels=REFERENCE):
    """Solve A x = b for each row, with product(v) = A v row by row; b (T, P): the Solution, its status in words.

    x_0 = 0, r_0 = p_0 = b;  a_k = |r_k|^2 / p_k'A p_k,  x_{k+1} = x_k + a_k p_k,  r_{k+1} = r_k - a_k A p_k,
    p_{k+1} = r_{k+1} + (|r_{k+1}|^2 / |r_k|^2) p_k.        Hestenes & Stiefel 1952, eq. 3:1a-f.

    A finished system stands still, as its a_k is 0, while the others go on. maxiter >= 0; tol: relative to |b|.
    kernels: of where b and the products are; status is NumPy's always. Whether to go on is looked at once an iteration.
    """
    expect(b.ndim == 2, "b", "shape (tasks, P)", f"{b.shape}")
    expect(maxiter >= 0, "maxiter", "an integer >= 0", repr(maxiter))
    solution = iterate(product, b, maxiter, tol, kernels, look=True)
    return solution._replace(status=STATUSES[kernels.to_host(solution.status)])


def iterate(product, b, maxiter, tol, kernels, look):
    """The Solution, its status a number for each system, the place in STATUSES, and where b is.

    look   whether to stop where no system goes on any more: on a GPU a wait in each iteration. Else all maxiter iterations are launched,
           whatever they find, as a CUDA graph needs it: x has the same bits, and the last residuals are there again
    """
    xp, move = kernels.xp, kernels.vector_move
    x, r, p = xp.zeros(b.shape, b.dtype), b.copy(), b.copy()
    rr = dot(kernels, r, r)
    goal = tol * xp.sqrt(rr)
    residuals, iterations = [xp.sqrt(rr)], xp.zeros(len(b), int)
    status = xp.full(len(b), MAXITER, np.int8)
    status = ended(xp, status, ~xp.isfinite(rr), NONFINITE)
    status = ended(xp, status, residuals[0] <= goal, CONVERGED)
    for _ in range(maxiter):
        if look and not (status == MAXITER).any():
            break
        Ap = product(p)
        curvature = dot(kernels, p, Ap)
        status = ended(xp, status, ~xp.isfinite(curvature), NONFINITE)
        status = ended(xp, status, curvature < 0, NEGATIVE_CURVATURE)
        status = ended(xp, status, curvature == 0, BREAKDOWN)
        active = status == MAXITER
        a = quotient(xp, rr, curvature, active)[:, None]
        move(x, x, a, p)
        move(r, r, -a, Ap)
        new = dot(kernels, r, r)
        move(p, r, quotient(xp, new, rr, active)[:, None], p)
        rr = xp.where(active, new, rr)
        iterations += active
        residuals.append(xp.sqrt(rr))
        status = ended(xp, status, residuals[-1] <= goal, CONVERGED)
    return Solution(x, kernels.concatenate([row[None] for row in residuals]), status, iterations)


def ended(xp, status, where, reason):
    """The status after those that still went on have ended, where they did, for a reason."""
    return xp.where((status == MAXITER) & where, np.int8(reason), status)
