"""Conjugate gradients on a system of one task, without leaving the compiled function.

    (I + H_aa / lambda) x = b        of the meta-gradient
    (H_aa + lambda I) x = b          of a Newton step

refmaml/methods/conjugate_gradients.py has the loop for all tasks at once, and the
remarks on it; statuses and iterates are the same but for the rounding of sums.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part
from refmaml.kernels.whole_net.derivatives import hessian_product
from refmaml.kernels.whole_net.filter_order import transpose_filters
from refmaml.kernels.whole_net.solver_numbers import (
    AFTER,
    BEFORE,
    BREAKDOWN,
    CONVERGED,
    MAXITER,
    NEGATIVE_CURVATURE,
    NONFINITE,
)
from refmaml.kernels.whole_net.update_rules import BLOCK, dot
from refmaml.kernels.whole_net.vectors import (
    add_product,
    add_scaled,
    copy,
    is_finite,
    shrink_and_add,
)


class System(NamedTuple):
    """A task's system: the vectors of CG, and where its matrix comes from.

    x, r, p, product, pt  the solution; b, then the residual; the direction; the matrix
                          times it; the direction with transposed filters
    phi, wt               where H is taken; the same with transposed filters
    mask                  1 where a parameter adapts, 0 elsewhere
    work, winners         the pass at phi; rwork: memory for tangents
    """

    x: np.ndarray
    r: np.ndarray
    p: np.ndarray
    product: np.ndarray
    pt: np.ndarray
    phi: np.ndarray
    wt: np.ndarray
    mask: np.ndarray
    work: np.ndarray
    rwork: np.ndarray
    winners: np.ndarray


@inner()
def hessian_times(e, t, s, v):
    """Fills s.product with H v; uses s.pt."""
    transpose_filters(e.table, e.lists, s.pt, v)
    hessian_product(
        e, t, s.phi, s.wt, v, s.pt, s.product, s.work, s.rwork, s.winners
    )  # fmt: skip


@inner()
def curvature(s, newton, strength):
    """<p, A p>, with A p in the place of H p."""
    lanes, p, product = np.zeros(32, s.p.dtype), s.p, s.product
    for lo in range(0, len(p), BLOCK):
        hi = min(lo + BLOCK, len(p))
        out, v, mask = part(product, lo, hi), part(p, lo, hi), part(s.mask, lo, hi)
        if newton:
            for i in range(len(out)):
                out[i] = mask[i] * out[i] + strength * mask[i] * v[i]
        else:
            for i in range(len(out)):
                out[i] = v[i] + mask[i] / strength * out[i]
        add_product(lanes, v, out)
    return lanes.sum()


@inner()
def advance(s, a):
    """x += a p and r -= a A p. Returns |r|^2."""
    lanes = np.zeros(32, s.p.dtype)
    for lo in range(0, len(s.p), BLOCK):
        hi = min(lo + BLOCK, len(s.p))
        x, r = part(s.x, lo, hi), part(s.r, lo, hi)
        add_scaled(x, a, part(s.p, lo, hi))
        add_scaled(r, -a, part(s.product, lo, hi))
        add_product(lanes, r, r)
    return lanes.sum()


@inner()
def conjugate_gradients(e, t, s, newton, steps, tol, strength, residuals):
    """Solves A x = b of task t, b being in s.r. Returns (status, iterations).

    residuals: |b - A x| at BEFORE and AFTER.
    """
    rr = dot(s.r, s.r)
    goal = tol * sqrt(rr)
    residuals[BEFORE] = residuals[AFTER] = sqrt(rr)
    copy(s.p, s.r)
    s.x[:] = strength - strength
    if not is_finite(rr):
        return NONFINITE, 0
    if sqrt(rr) <= goal:
        return CONVERGED, 0
    for k in range(steps):
        hessian_times(e, t, s, s.p)
        bent = curvature(s, newton, strength)
        if not is_finite(bent):
            return NONFINITE, k
        if bent < 0:
            return NEGATIVE_CURVATURE, k
        if bent == 0:
            return BREAKDOWN, k
        new = advance(s, rr / bent)
        shrink_and_add(s.p, new / rr, s.r)
        rr = new
        residuals[AFTER] = sqrt(rr)
        if residuals[AFTER] <= goal:
            return CONVERGED, k + 1
    return MAXITER, steps
