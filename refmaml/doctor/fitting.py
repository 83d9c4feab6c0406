"""Fitting the numbers of a Family to a gradient, on one case.

    min over p, s of |(g - s c(p)) / allowed|^2

c(p) is the gradient of the changed method, s a factor. Levenberg-Marquardt from every
start; derivatives by central differences. An optimum counts where the largest error is
at most ACCEPTED times what rounding allows, so at the noise floor.
"""

from typing import NamedTuple

import numpy as np

from refmaml.doctor.matching import ACCEPTED, candidate_or_nothing, fit_scale

ROUNDS = 30  # Levenberg-Marquardt steps at most
STEP = 1e-4  # of a central difference, relative to the number: truncation 1e-8, and
# rounding of the gradient over it 1e-11
ONE_SIDED = 1e-6  # of a difference to one side: truncation 1e-6, so that each step of the
# descent still leaves a millionth of the error
STUCK = 0.9995  # a part of the error that would remain in the linear model at best, above
# which a rough descent ends: a local minimum
HOPELESS = {3: 0.5, 6: 1e-2, 12: 1e-6}  # after so many steps, the error must be smaller by
# this factor
NEAREST = 6  # starts, of many, from which the search goes on
CONVERGED = 1e-13  # a relative change of the numbers below which the search ends
APART = 1e-3  # two optima that differ by more than this are different ones
DIGITS = range(1, 7)  # to which a fitted number is rounded


class Optimum(NamedTuple):
    """Fitted values, the factor s, and the misfit that remains."""

    values: tuple
    scale: float
    misfit: float


def optima(case, g, family, seconds_left, starts=None, accepted=ACCEPTED, rough=False):
    """[Optimum] at the noise floor, best first, each far from the others.

    starts   [values]; None: those of the family
    accepted the misfit up to which one counts
    rough    whether fewer gradients are computed on the way: see `descend`
    """
    found = []
    for start in nearest(case, g, family) if starts is None else starts:
        if seconds_left() <= 0:
            break
        best = descend(case, g, family, start, rough)
        if best.misfit <= accepted and all(far(best, other, family) for other in found):
            found.append(best)
            if len(found) > 1:
                break
    return sorted(found, key=lambda o: o.misfit)


def starts_of(family):
    """[values]: all first starts, all second starts and so on; a number that has fewer
    goes on with its last one."""
    most = max(len(n.starts) for n in family.numbers)
    return [[n.starts[min(i, len(n.starts) - 1)] for n in family.numbers] for i in range(most)]


def nearest(case, g, family):
    """The starts of a family; of many, the NEAREST ones with the smallest misfit."""
    starts = starts_of(family)
    if len(starts) <= NEAREST:
        return starts
    fits = [fit_of(case, g, family, start) for start in starts]
    misfits = [np.inf if fit is None else fit.misfit for fit in fits]
    return [starts[i] for i in np.argsort(misfits)[:NEAREST]]


def far(a, b, family):
    """Whether two optima have different numbers."""
    return any(
        abs(x - y) > APART * max(abs(x), abs(y), n.least)
        for x, y, n in zip(a.values, b.values, family.numbers, strict=True)
    )


def gradient_of(case, family, p):
    """c(p) (M,), or None where the mistake cannot have these numbers."""
    c = candidate_or_nothing(case, lambda: family.changes(case, *map(float, p)))
    return c if c is not None and np.isfinite(c).all() else None


def descend(case, g, family, p, rough=False):
    """The Optimum that Levenberg-Marquardt reaches from p.

    rough  whether derivatives are differences to one side, and the descent ends at the
           first local minimum
    """
    p = np.array(p, float)
    nothing = Optimum(tuple(p), 0.0, np.inf)
    c = gradient_of(case, family, p)
    if c is None:
        return nothing
    target, damping = g / case.allowed, 1e-3
    fit = fit_scale(case, g, c)
    first = error = size_of(target - fit.scale * c / case.allowed)
    for step in range(ROUNDS):
        if error > HOPELESS.get(step, np.inf) * first:
            break
        A = derivatives(case, family, p, c, fit.scale, rough)
        residual = target - fit.scale * c / case.allowed
        if A is None or (rough and size_of(least_residual(A, residual)) > STUCK * error):
            break
        new = damped_step(case, g, family, p, A, residual, damping)
        if new is None:
            break
        change, (p, c, fit, error), damping = relative(new[0] - p, family, p), new[:4], new[4]
        if change < CONVERGED or fit.misfit < 0.1:
            break
    return Optimum(tuple(map(float, p)), fit.scale, fit.misfit)


def size_of(residual):
    """|r|; infinite where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = float(np.sqrt(residual @ residual))
    return size if np.isfinite(size) else np.inf


def relative(change, family, p):
    """The largest change of a number, relative to it."""
    return max(
        abs(d) / max(abs(x), n.least) for d, x, n in zip(change, p, family.numbers, strict=True)
    )


def derivatives(case, family, p, c, scale, one_sided=False):
    """(M, numbers + 1): d(s c)/dp by central differences, and c, over what rounding
    allows; one-sided where a number is at its bound. None where that fails."""
    columns = []
    for i, number in enumerate(family.numbers):
        h = (ONE_SIDED if one_sided else STEP) * max(abs(p[i]), number.least)
        ends = [p.copy(), p.copy()]
        above = min(p[i] + h, number.high)
        ends[0][i] = p[i] if one_sided and above > p[i] else max(p[i] - h, number.low)
        ends[1][i] = above
        values = [c if end[i] == p[i] else gradient_of(case, family, end) for end in ends]
        if any(v is None for v in values):
            return None
        columns.append(scale * (values[1] - values[0]) / (ends[1][i] - ends[0][i]))
    return np.stack([*columns, c], axis=1) / case.allowed[:, None]


def least_residual(A, residual):
    """The residual that the linear model leaves at best; 0 where it is not finite."""
    norms = np.sqrt((A * A).sum(axis=0))
    if not np.isfinite(norms).all():
        return np.zeros_like(residual)
    A = A / np.where(norms == 0, 1.0, norms)
    return residual - A @ np.linalg.lstsq(A, residual, rcond=None)[0]


def damped_step(case, g, family, p, A, residual, damping):
    """(p, c, Fit, error, damping) after a step that makes the error smaller, or
    None.
    """
    norms = np.sqrt((A * A).sum(axis=0))
    if not np.isfinite(norms).all():
        return None
    norms[norms == 0] = 1.0
    low = np.array([n.low for n in family.numbers])
    high = np.array([n.high for n in family.numbers])
    error = size_of(residual)
    for _ in range(8):
        damped = np.concatenate([A / norms, np.sqrt(damping) * np.eye(A.shape[1])])
        right = np.concatenate([residual, np.zeros(A.shape[1])])
        change = (np.linalg.lstsq(damped, right, rcond=None)[0] / norms)[:-1]
        new = np.clip(p + change, low, high)
        c = gradient_of(case, family, new)
        if c is not None:
            fit = fit_scale(case, g, c)
            after = size_of(g / case.allowed - fit.scale * c / case.allowed)
            if after < error:
                return new, c, fit, after, max(damping / 10, 1e-12)
        damping = min(damping * 10, 1e12)
    return None


# ---- rounding ------------------------------------------------------------------------


def rounded(case, g, family, optimum):
    """The Optimum with each number rounded as far as it still fits as well."""
    values = list(optimum.values)
    allowed = max(ACCEPTED / 2, 1.5 * optimum.misfit)
    for i, number in enumerate(family.numbers):
        tries = [*number.simple, *(float(f"{values[i]:.{d}g}") for d in DIGITS)]
        for value in tries:
            near = abs(value - values[i]) <= 0.5 * abs(values[i]) or value in number.simple
            if not near or not number.low <= value <= number.high:
                continue
            changed = [*values[:i], value, *values[i + 1 :]]
            fit = fit_of(case, g, family, changed)
            if fit is not None and fit.misfit <= allowed:
                values = changed
                break
    fit = fit_of(case, g, family, values)
    return Optimum(tuple(values), fit.scale, fit.misfit)


def fit_of(case, g, family, values):
    """The Fit of a family with given numbers, or None."""
    c = gradient_of(case, family, values)
    return None if c is None else fit_scale(case, g, c)
