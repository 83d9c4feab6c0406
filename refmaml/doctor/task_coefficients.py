"""Tasks that are weighted: g = (1/T) sum_t c_t M_t with other c_t than the method's.

The c_t are a linear least-squares fit, on each case by itself. They are named where
they are unique and at the noise floor, and the same on all cases with as many tasks.
"""

from fractions import Fraction

import numpy as np

from refmaml.doctor.dictionary import rows_of
from refmaml.doctor.matching import ACCEPTED, Explanation
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.doctor.mistakes.family import plain
from refmaml.doctor.mistakes.second_order import DETACHED, FIRST_ORDER

AGREE = 1e-6  # relative difference of the coefficients between cases
SEPARATE = 1e-6  # smallest singular value, relative, at which tasks can be told apart
LARGEST = 100  # denominator of a weight that is printed as a fraction
VARIANTS = ({}, "", {}), ({"curvature": 0.0}, FIRST_ORDER, DETACHED)


def explain_by_task_coefficients(cases, grads, second_order):
    """[Explanation] by weights of the tasks, of the right gradient or of the
    first-order one; [] where none explains every case."""
    for changes, also, advice in VARIANTS if second_order else VARIANTS[:1]:
        fitted = [coefficients(case, g, changes) for case, g in zip(cases, grads, strict=True)]
        if any(c is None for c, _ in fitted):
            continue
        found = [c for c, _ in fitted]
        same = all(agree(c, found[0]) for c in found if len(c) == len(found[0]))
        if same:
            mistakes = (weighted(found[0]), *named(also, advice))
            return [Explanation(mistakes, "", max(misfit for _, misfit in fitted))]
    return []


def named(name, advice):
    """(Mistake,) of a second mistake, or ()."""
    return (Mistake("1", name, None, advice),) if name else ()


def coefficients(case, g, changes):
    """(c (T,), misfit), or (None, inf) where no unique c explains g."""
    rows = rows_of(case, changes) / len(case.batch)
    if len(case.batch) < 2 or len(g) < len(rows) + 1:
        return None, np.inf
    A, b = (rows / case.allowed).T, g / case.allowed
    c, _, rank, sizes = np.linalg.lstsq(A, b, rcond=SEPARATE)
    misfit = float(np.abs(A @ c - b).max() / max(1.0, np.abs(c).max()))
    unique = rank == len(rows) and sizes[-1] > SEPARATE * sizes[0]
    return (c, misfit) if unique and misfit <= ACCEPTED else (None, np.inf)


def agree(a, b):
    """Whether two sets of coefficients are the same."""
    return np.abs(a - b).max() <= AGREE * np.abs(b).max()


def fraction(x):
    """x as text: a fraction with a small denominator where it is one."""
    near = Fraction(x).limit_denominator(LARGEST)
    return str(near) if abs(float(near) - x) <= AGREE * abs(x) else plain(x)


def weighted(c):
    """The Mistake of tasks with these coefficients."""
    c = np.where(np.abs(c) < AGREE * np.abs(c).max(), 0, c)
    listed = ", ".join(map(fraction, c.tolist()))
    left = [str(t + 1) for t in np.flatnonzero(c == 0)]
    name = f"tasks weighted: M = (1/T) sum_t w_t M_t with w = ({listed})"
    name += f"; task {', '.join(left)} is left out" if left else ""
    advice = fix(
        f"if it is meant, declare it: task_weights=({listed}), or a function of the number of "
        "tasks; else give every task the same weight"
    )
    return Mistake("8", name, None, advice)
