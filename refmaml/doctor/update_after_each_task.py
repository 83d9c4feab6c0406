"""The mistake of an outer step after every task, whose size has to be searched for."""

from functools import partial

import numpy as np

from refmaml.doctor import scale_factors
from refmaml.doctor.matching import ACCEPTED, SEARCH_TIME, Fit, fit_scale, ranked
from refmaml.doctor.method_table import IMPLICIT, SOLVED, entry
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.doctor.unrolled_variants import right_loop, sequential

FIX = fix("take every task's gradient at the same meta-parameters, then average")
ROUNDS = 12  # Gauss-Newton steps
NOT_FOUND = 0.0, Fit(0.0, np.inf)


def explain_by_update_after_each_task(cases, grads, seconds_left=lambda: SEARCH_TIME):
    """[Explanation]: an outer step of size beta after every task.

    beta is fitted on each case, and must be the same expression on all.
    """
    known = entry(cases[0].method)
    if known.kind in (IMPLICIT, SOLVED) or any(len(case.batch) < 2 for case in cases):
        return []
    betas, fits = [], []
    for case, g in zip(cases, grads, strict=True):
        beta, fit = best_beta(case, g, seconds_left)
        if fit.misfit > ACCEPTED or beta == 0:
            return []
        betas.append(beta)
        fits.append(fit)
    named = scale_factors.name_of(cases, betas)
    size = named[0] if named else f"{betas[0]:.3g}"
    step = f"an outer step of size {size} after every task, not after all of them"
    return ranked(cases, [((Mistake("9", step, None, FIX),), fits)])


@np.errstate(over="ignore", invalid="ignore")  # steps that are too long overflow
def best_beta(case, g, seconds_left):
    """(beta, Fit) of the sequential update nearest to g.

    Gauss-Newton in beta and the factor, from beta = 0.
    """
    gradient = partial(sequential, case, right_loop(case.method))
    beta, h = 0.0, 1e-6
    for _ in range(ROUNDS):
        if seconds_left() <= 0:
            return NOT_FOUND
        c, dc = gradient(beta), (gradient(beta + h) - gradient(beta - h)) / (2 * h)
        s = fit_scale(case, g, c).scale
        A = np.stack([c, s * dc], axis=1) / case.allowed[:, None]
        if not np.isfinite(A).all():
            return NOT_FOUND
        change = np.linalg.lstsq(A, g / case.allowed, rcond=None)[0][1]
        if not np.isfinite(change) or abs(change) > 10:
            return NOT_FOUND
        beta += change
        if abs(change) < 1e-13 * abs(beta):
            break
    return beta, fit_scale(case, g, gradient(beta))
