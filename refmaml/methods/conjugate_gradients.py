"""Conjugate gradients for many symmetric positive definite systems at once.

Remarks on the loop in `iterate`, where it differs from the textbook:

1. All systems run side by side. A system that has ended takes steps of length 0: its x
   stands still while the others go on, so its bits do not depend on them.
2. A direction with p' A p < 0 proves that A is not positive definite. The system ends
   before it takes the step, and says so in its status instead of returning a wrong x.
3. p' A p = 0 with r not yet small: A is singular along p. The system ends.
4. NaN or infinity ends a system too; x is its last finite iterate.
5. r is updated, not computed again as b - A x: after very many iterations it may drift
   from the true residual.
6. The loop may end early, when every system has ended. With early_stop=False it runs
   all iterations: the same x, and the last residuals once more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import is_integer
from refmaml.errors import expect
from refmaml.kernels.reference_set import reference
from refmaml.layers.layer import Array

STATUSES = np.array(["converged", "maxiter", "negative_curvature", "breakdown", "nonfinite"])
CONVERGED, MAXITER, NEGATIVE_CURVATURE, BREAKDOWN, NONFINITE = range(len(STATUSES))
REFERENCE = reference()
Product = Callable[[Array], Array]  # v (T, P) to A v, row by row


class Solution(NamedTuple):
    """x (T, P); residuals: |b - A x| after 0, 1, ... iterations, (iterations + 1, T);
    status and iterations of each system (T,).

    converged            |r| <= tol |b|
    maxiter              not yet, and no iteration left
    negative_curvature   p' A p < 0 (remark 2); x is the last iterate before it
    breakdown            p' A p = 0 with r not yet small (remark 3); x as above
    nonfinite            NaN or infinity in b, a product or their squares (remark 4)
    """

    x: np.ndarray
    residuals: np.ndarray
    status: np.ndarray
    iterations: np.ndarray


def dot(kernels: Any, a: Array, b: Array) -> Array:
    """Row by row <a, b>, (T,)."""
    out = kernels.empty((len(a), 1), np.result_type(a.dtype, b.dtype))
    kernels.vector_dot(out, a, b)
    return out[:, 0]


def quotient(xp: Any, a: Array, b: Array, where: Array) -> Array:
    """a / b at `where`, 0 elsewhere. Overflow gives infinity; the caller detects it."""
    with np.errstate(all="ignore"):
        return xp.where(where, a / xp.where(where, b, b.dtype.type(1)), b.dtype.type(0))


def conjugate_gradients(
    product: Product, b: np.ndarray, maxiter: int, tol: float = 1e-10, kernels: Any = REFERENCE
) -> Solution:
    """Solve A x = b for each row of b (T, P); product(v) is A v row by row.

    Returns a Solution.
    x_0 = 0, r_0 = p_0 = b;  a_k = |r_k|^2 / p_k'A p_k,  x_{k+1} = x_k + a_k p_k,
    r_{k+1} = r_k - a_k A p_k,  p_{k+1} = r_{k+1} + (|r_{k+1}|^2 / |r_k|^2) p_k.
    Source: Hestenes & Stiefel 1952, eq. 3:1a-f.

    maxiter  >= 0; tol: relative to |b|
    kernels  the kernel set of b and the products; status is always a NumPy array
    Raises ArgumentError for another b or maxiter.

    >>> import numpy as np, refmaml as rm
    >>> A = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> b = np.array([[1.0, 2.0]])
    >>> solution = rm.conjugate_gradients(lambda v: v @ A, b, maxiter=2)
    >>> solution.x.round(6), solution.status
    (array([[0.090909, 0.636364]]), array(['converged'], dtype='<U18'))
    """
    expect(b.ndim == 2, "b", "shape (tasks, P)", f"{b.shape}")
    expect(is_integer(maxiter) and maxiter >= 0, "maxiter", "an integer >= 0", repr(maxiter))
    solution = iterate(product, b, maxiter, tol, kernels)
    return solution._replace(status=STATUSES[kernels.to_host(solution.status)])


def iterate(
    product: Product, b: Array, maxiter: int, tol: float, kernels: Any, early_stop: bool = True
) -> Solution:
    """The Solution, each status as its place in STATUSES; all arrays of b's kind."""
    xp, move = kernels.xp, kernels.vector_move
    x, r, p = xp.zeros(b.shape, b.dtype), b.copy(), b.copy()
    rr = dot(kernels, r, r)
    goal = tol * xp.sqrt(rr)
    residuals, iterations = [xp.sqrt(rr)], xp.zeros(len(b), int)
    status = xp.full(len(b), MAXITER, np.int8)
    status = mark_stopped(xp, status, ~xp.isfinite(rr), NONFINITE)
    status = mark_stopped(xp, status, residuals[0] <= goal, CONVERGED)
    for _ in range(maxiter):
        if early_stop and not (status == MAXITER).any():  # remark 6
            break
        Ap = product(p)
        curvature = dot(kernels, p, Ap)
        status = mark_stopped(xp, status, ~xp.isfinite(curvature), NONFINITE)  # remark 4
        status = mark_stopped(xp, status, curvature < 0, NEGATIVE_CURVATURE)  # remark 2
        status = mark_stopped(xp, status, curvature == 0, BREAKDOWN)  # remark 3
        active = status == MAXITER
        a = quotient(xp, rr, curvature, active)[:, None]  # 0 for an ended system: remark 1
        move(x, x, a, p)  # x = x + a p
        move(r, r, -a, Ap)  # r = r - a A p: remark 5
        new = dot(kernels, r, r)
        move(p, r, quotient(xp, new, rr, active)[:, None], p)  # p = r + (new / rr) p
        rr = xp.where(active, new, rr)
        iterations += active
        residuals.append(xp.sqrt(rr))
        status = mark_stopped(xp, status, residuals[-1] <= goal, CONVERGED)
    rows = kernels.concatenate([row[None] for row in residuals])
    return Solution(x, rows, status, iterations)


def mark_stopped(xp: Any, status: Array, where: Array, reason: int) -> Array:
    """`status` with `reason` for the systems that were still running, at `where`."""
    return xp.where((status == MAXITER) & where, np.int8(reason), status)
