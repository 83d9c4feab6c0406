"""Which mistake, times which one factor, explains what was returned on every case.

A candidate c explains a gradient g where g = s c to rounding, s the best factor.
`misfit` is the largest error in multiples of what rounding allows. A candidate is
accepted at a misfit of up to ACCEPTED, because a wrong gradient may be conditioned
worse than the right one; on every case; and only if its factors are one and the same
expression. Others within TIED times the best misfit cannot be distinguished from it.
"""

from typing import NamedTuple

import numpy as np

from refmaml.doctor import scale_factors
from refmaml.doctor.dictionary import candidate, dictionary, pairs
from refmaml.errors import RefmamlError

ACCEPTED, TIED = 10.0, 30.0
SEARCH_TIME = 60.0  # seconds of a search without a limit of its own
CONFLICT = object()  # two mistakes that change the same field


class Explanation(NamedTuple):
    """mistakes: one, or two at once, none for a mere factor; scale: the factor's text,
    "" where it is 1; misfit: the largest of all cases."""

    mistakes: tuple
    scale: str
    misfit: float

    def __str__(self):
        what = "; and ".join(m.name for m in self.mistakes)
        if not what:
            return f"the right gradient times {self.scale}"
        return f"{what}, times {self.scale}" if self.scale else what


class Fit(NamedTuple):
    """The best factor of a candidate on one case, and the misfit that remains."""

    scale: float
    misfit: float


def fit_scale(case, g, c):
    """s = <g, c> / <c, c> and max |g - s c|, both in units of what rounding allows.

    Where s c is larger than the true gradient, rounding allows more in proportion.
    """
    a, b = g / case.allowed, c / case.allowed
    with np.errstate(over="ignore"):  # a diverging candidate explains nothing
        squared = b @ b
    if not np.isfinite(squared) or squared == 0:
        return Fit(0.0, np.inf)
    s = float(a @ b / squared)
    if np.abs(s * b).max() <= ACCEPTED:  # 0 to rounding, so anything would fit
        return Fit(s, np.inf)
    larger = max(1.0, np.abs(s * c).max() / np.abs(case.truth).max())
    return Fit(s, float(np.abs(a - s * b).max() / larger))


def misfit_of_truth(case, g):
    """max |g - truth| / allowed: at most 1 for a right gradient."""
    return float(np.abs((g - case.truth) / case.allowed).max())


def candidate_or_truth(case, changes):
    """The candidate's gradient; the truth where the mistake cannot occur."""
    if not changes:
        return case.truth
    try:
        with np.errstate(all="ignore"):
            return candidate(case, changes)
    except (RefmamlError, KeyError, IndexError):  # e.g. a name that this net does not have
        return case.truth


def candidate_or_nothing(case, changes):
    """The gradient of the candidate with changes() (M,); None where the method cannot
    have them."""
    try:
        with np.errstate(all="ignore"):
            made = changes()
            return None if made is None else candidate(case, made)
    except (RefmamlError, KeyError, IndexError, FloatingPointError):
        return None


def explain_by_scale(cases, grads):
    """[Explanation] by a factor alone; empty where none explains every case.

    cases, grads   at least one case with the gradient (M,) that was returned for it
    """
    return try_all(cases, grads, [()])


def explain_by_one(cases, grads, seconds_left=lambda: SEARCH_TIME, alone=None):
    """[Explanation] by one mistake of the dictionary, best first.

    All but the first cannot be distinguished from it. Empty where nothing explains
    every case.

    seconds_left   () -> how many seconds the search may still take
    alone          a SingleTask (own_loss/single_task.py) that excludes candidates, or
                   None
    """
    ordered = sorted(mistakes_of(cases), key=lambda m: not m.common)
    return try_all(cases, grads, [(m,) for m in ordered], seconds_left, alone)


def explain_by_two(cases, grads, seconds_left=lambda: SEARCH_TIME, alone=None):
    """The same by two mistakes at once, one of them common.

    Two mistakes change every named array, so they are not tried where one is right.
    """
    if all(some_array_right(case, g) for case, g in zip(cases, grads, strict=True)):
        return []
    return try_all(cases, grads, pairs(mistakes_of(cases)), seconds_left, alone)


def mistakes_of(cases):
    """[Mistake]: those of the cases themselves, and the method's dictionary, without
    what needs refmaml's layers where the loss is the user's own. Of two with the same
    name the first."""
    known = dictionary(cases[0].method)
    if cases[0].own_loss:
        known = [m for m in known if not m.needs_kernels]
    found = {}
    for mistake in (*cases[0].more_mistakes, *known):
        found.setdefault(mistake.name, mistake)
    return list(found.values())


def some_array_right(case, g):
    """Whether the gradient is right in some named array that is more than rounding."""
    off = np.abs((g - case.truth) / case.allowed)
    return any(
        off[place].max() <= 1
        for place in case.places.values()
        if np.abs(case.truth[place]).max() > case.allowed[place].max()
    )


def try_all(cases, grads, groups, seconds_left=lambda: SEARCH_TIME, alone=None):
    """[Explanation] for the groups of mistakes that explain every case.

    One task alone comes first, then the cheapest case, as these exclude most of them.
    When time is up, the groups fitted until then are ranked.
    """
    remaining = [(group, []) for group in groups]
    by_cost = sorted(zip(cases, grads, strict=True), key=lambda pair: cost(pair[0]))
    for case, g in by_cost:
        fitting = []
        for group, fits in remaining:
            if seconds_left() <= 0:
                break
            changes = merged(case, group)
            if changes is CONFLICT or (alone and not alone.may_explain(case, group)):
                continue
            fit = fit_scale(case, g, candidate_or_truth(case, changes))
            if fit.misfit <= ACCEPTED * TIED:
                fitting.append((group, [*fits, fit]))
        remaining = fitting
    return ranked([case for case, _ in by_cost], remaining)


def cost(case):
    """Roughly what a candidate costs on this case."""
    return case.net.activations(case.batch.x_support.shape[1:]) + case.net.num_params


def merged(case, group):
    """The changes of a group of mistakes on a case, as far as they can occur there;
    CONFLICT where two change the same field."""
    out = {}
    for changes in (m.changes_on(case) for m in group):
        if changes and set(changes) & set(out):
            return CONFLICT
        out |= changes or {}
    return out


def ranked(cases, fitted):
    """The accepted groups with their factors named, simplest first, and those that
    cannot be distinguished from the best.

    fitted   [(group, [Fit of each case])]
    """
    found = []
    for group, fits in fitted:
        named = scale_factors.name_of(cases, [f.scale for f in fits])
        if named:
            text, is_one = named
            found.append(Explanation(group, "" if is_one else text, max(f.misfit for f in fits)))
    least = min((e.misfit for e in found), default=np.inf)
    if least > ACCEPTED:
        return []
    found = [e for e in found if e.misfit <= ACCEPTED or tied(cases, e, least)]
    without_scale = [e for e in found if not e.scale]  # a factor would need its own reason
    return sorted(
        without_scale or found, key=lambda e: (e.misfit > ACCEPTED, len(e.scale), len(e.mistakes))
    )


def tied(cases, explanation, least):
    """Whether an explanation is nearly as good as the best, and changes something.

    A mistake that changes nothing on any case is the right gradient under another name.
    """
    if explanation.misfit > TIED * max(1.0, least):
        return False
    for case in cases:
        c = candidate_or_truth(case, merged(case, explanation.mistakes))
        if np.abs((c - case.truth) / case.allowed).max() > 1:
            return True
    return False
