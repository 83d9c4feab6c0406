"""Which mistake, at which one scale, explains what was returned on every case.

A candidate c explains a gradient g where g = s c to rounding, s its best scale; `misfit` counts in multiples of what rounding allows. It is
accepted at up to ACCEPTED of those, as a wrong gradient may be conditioned worse than the right one, on every case, and only if its scales
are one and the same expression. Others within AHEAD times its misfit cannot be told from it.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from refmaml.doctor import scale_factors
from refmaml.doctor.dictionary import candidate, dictionary, pairs
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.doctor.unrolled_variants import right_loop, sequential
from refmaml.errors import RefmamlError
from refmaml.methods import IMAML

ACCEPTED, AHEAD = 10.0, 30.0
CLASH = object()
AMPLE = 60.0  # seconds after which no more pairs are tried


class Explained(NamedTuple):
    """mistakes: one, or two at once, none for a mere factor; scale: its text, "" where it is 1; misfit: the worst of all cases."""

    mistakes: tuple
    scale: str
    misfit: float

    def __str__(self):
        what = "; and ".join(m.name for m in self.mistakes)
        if not what:
            return f"the right gradient times {self.scale}"
        return f"{what}, times {self.scale}" if self.scale else what


class Fitted(NamedTuple):
    """The best scale of a candidate on one case, and how far it then is from what was returned."""

    scale: float
    misfit: float


def fitted(case, g, c):
    """s = <g, c> / <c, c> in units of what rounding allows, and max |g - s c| / allowed (of a larger gradient, allowed in proportion)."""
    a, b = g / case.allowed, c / case.allowed
    with np.errstate(over="ignore"):  # a mistake that runs away explains nothing
        below = b @ b
    if not np.isfinite(below) or below == 0:
        return Fitted(0.0, np.inf)
    s = float(a @ b / below)
    if np.abs(s * b).max() <= ACCEPTED:  # within rounding of 0, and so explained by anything
        return Fitted(s, np.inf)
    larger = max(1.0, np.abs(s * c).max() / np.abs(case.truth).max())
    return Fitted(s, float(np.abs(a - s * b).max() / larger))


def misfit_of_truth(case, g):
    """max |g - truth| / allowed: at most 1 for a right gradient."""
    return float(np.abs((g - case.truth) / case.allowed).max())


def vector(case, changes):
    """The candidate's gradient on a case; the truth where the mistake cannot arise there."""
    if not changes:
        return case.truth
    try:
        with np.errstate(all="ignore"):
            return candidate(case, changes)
    except (RefmamlError, KeyError, IndexError):  # e.g. a name that this net does not have
        return case.truth


def explain(cases, answers, seconds_left=lambda: AMPLE):
    """[Explained] by a factor alone, by one mistake of the dictionary, or by an outer step after every task; best first, and all but the
    first cannot be told from it. Empty where nothing explains every case.

    cases, answers   at least one case with the gradient (M,) that came back for it; seconds_left(): how long the search may go on
    """
    singles = [(m,) for m in sorted(dictionary(cases[0].method), key=lambda m: not m.common)]
    return (
        try_all(cases, answers, [()])
        or try_all(cases, answers, singles, seconds_left)
        or try_sequential(cases, answers, seconds_left)
    )


def explain_by_two(cases, answers, seconds_left=lambda: AMPLE):
    """The same by two mistakes at once, one of them common. What leaves a named array right is no such thing: it is not looked for."""
    if all(untouched(case, g) for case, g in zip(cases, answers, strict=True)):
        return []
    return try_all(cases, answers, pairs(dictionary(cases[0].method)), seconds_left)


def untouched(case, g):
    """Whether the gradient is wrong on a case, but right in some named array (or right throughout)."""
    off = np.abs((g - case.truth) / case.allowed)
    return any(
        off[place].max() <= 1
        for place in case.places.values()
        if np.abs(case.truth[place]).max() > case.allowed[place].max()
    )


def try_all(cases, answers, groups, seconds_left=lambda: AMPLE):
    """[Explained] for those of the groups of mistakes that explain every case. The cheapest case rules most of them out."""
    alive = [(group, []) for group in groups]
    ranked = sorted(zip(cases, answers, strict=True), key=lambda pair: cost(pair[0]))
    for case, g in ranked:
        still = []
        for group, fits in alive:
            if seconds_left() <= 0:  # what has been tried by then is judged
                break
            changes = merged(case, group)
            fit_ = None if changes is CLASH else fitted(case, g, vector(case, changes))
            if fit_ is not None and fit_.misfit <= ACCEPTED * AHEAD:
                still.append((group, [*fits, fit_]))
        alive = still
    return judged([case for case, _ in ranked], alive)


def cost(case):
    """Roughly what a candidate costs on this case."""
    return case.net.activations(case.batch.x_support.shape[1:]) + case.net.num_params


def merged(case, group):
    """The changes of a group of mistakes on a case, as far as they can arise there; CLASH where two change the same field."""
    out = {}
    for changes in (m.of(case) for m in group):
        if changes and set(changes) & set(out):
            return CLASH
        out |= changes or {}
    return out


def judged(cases, alive):
    """The accepted groups with their scales named, simplest first, and those that cannot be told from the best."""
    found = []
    for group, fits in alive:
        named = scale_factors.name_of(cases, [f.scale for f in fits])
        if named:
            found.append(
                Explained(group, "" if named[1] else named[0], max(f.misfit for f in fits))
            )
    least = min((e.misfit for e in found), default=np.inf)
    if least > ACCEPTED:
        return []
    found = [
        e
        for e in found
        if e.misfit <= ACCEPTED or e.misfit <= AHEAD * max(1.0, least) and not invisible(cases, e)
    ]
    plain = [
        e for e in found if not e.scale
    ] or found  # what needs no factor needs no explanation of one
    return sorted(plain, key=lambda e: (e.misfit > ACCEPTED, len(e.scale), len(e.mistakes)))


def invisible(cases, explained):
    """Whether a mistake changes nothing on any case: then it is no rival, only the right gradient under another name."""
    return all(
        np.abs((vector(case, merged(case, explained.mistakes)) - case.truth) / case.allowed).max()
        <= 1
        for case in cases
    )


def try_sequential(cases, answers, seconds_left=lambda: AMPLE):
    """An outer step after every task, of a size beta that is searched for on each case and must be the same on all."""
    if isinstance(cases[0].method, IMAML) or any(len(case.batch) < 2 for case in cases):
        return []
    betas, fits = [], []
    for case, g in zip(cases, answers, strict=True):
        beta, fit_ = best_beta(case, g, seconds_left)
        if fit_.misfit > ACCEPTED or beta == 0:
            return []
        betas.append(beta)
        fits.append(fit_)
    named = scale_factors.name_of(cases, betas)
    step = f"an outer step of size {named[0] if named else f'{betas[0]:.3g}'} after every task, not after all of them"
    mistake = Mistake(
        "9", step, None, fix("take every task's gradient at the same meta-parameters, then average")
    )
    return judged(cases, [((mistake,), fits)])


def best_beta(case, g, seconds_left, rounds=12):
    """(beta, Fitted) of the sequential update nearest to g: Gauss-Newton in beta and the scale, from beta = 0."""
    make = partial(sequential, case, right_loop(case.method))
    beta, h = 0.0, 1e-6
    for _ in range(rounds):
        if seconds_left() <= 0:
            return 0.0, Fitted(0.0, np.inf)
        c, dc = make(beta), (make(beta + h) - make(beta - h)) / (2 * h)
        s = fitted(case, g, c).scale
        A = np.stack([c, s * dc], axis=1) / case.allowed[:, None]
        step = np.linalg.lstsq(A, g / case.allowed, rcond=None)[0]
        moved = step[1]
        if not np.isfinite(moved) or abs(moved) > 10:
            return 0.0, Fitted(0.0, np.inf)
        beta += moved
        if abs(moved) < 1e-13 * abs(beta):
            break
    return beta, fitted(case, g, make(beta))
