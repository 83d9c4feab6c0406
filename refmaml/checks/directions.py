"""Derivatives by differences, with a step size that is found and not given.

Along one line s -> f(s), with 4th-order central differences

    d(h) = (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / (12 h),

whose error is f^(5) h^4 / 30 plus rounding / h. h is halved from FIRST on; where three
neighbouring steps agree best, the middle one is taken. What they still disagree by is
the uncertainty. The answer that is to be checked takes no part in the choice.

At a kink the one-sided derivatives differ. With 2nd order on each side their difference

    j(h) = (4 (f(h) + f(-h)) - (f(2h) + f(-2h)) - 6 f(0)) / (2h)

is -f''''(0) h^3 / 2 where f is smooth, and so falls eightfold with each halving of h.
At a kink it stays: there no derivative exists.
"""

from typing import NamedTuple

import numpy as np

from refmaml.doctor.own_loss.differences import central

FIRST, LEVELS = 2.0**-3, 26  # the steps: FIRST, FIRST / 2, ...
PATIENCE = 4  # smaller steps that agree less, after which no more are tried
AGREED = 1e-8  # relative: only steps that agree to this many digits end the search early
SAFETY = 10  # the true error against the disagreement of neighbouring steps
HIDDEN = 1e-6  # relative: gradients smaller than this are rounding, or of no weight
STAYS = 2.0  # a jump of slope changes by less than this where h is halved; j(h) by 8


class Derivative(NamedTuple):
    """df/ds at 0.

    value        a number or an array
    uncertainty  how far it may be off: SAFETY times what neighbouring steps disagree
                 by, and rounding of f over the step
    step         the step size that was chosen
    jump         the difference of the one-sided derivatives, where it does not vanish;
                 otherwise 0
    """

    value: np.ndarray
    uncertainty: float
    step: float
    jump: float


def size(a):
    """max |a|; NaN and infinity count as infinity."""
    a = np.abs(a)
    return float(a.max()) if np.isfinite(a).all() else np.inf


class Line:
    """The values of f along a line, each computed once.

    f(s) may raise or be infinite away from 0; both mean that a step is too long."""

    def __init__(self, f, at_zero, eps):
        self.f, self.values = f, {0.0: np.asarray(at_zero, float)}
        self.eps, self.error = eps, None

    def __call__(self, s):
        if s not in self.values:
            try:
                self.values[s] = np.asarray(self.f(s), float)
            except Exception as error:
                self.error = error
                self.values[s] = np.full_like(self.values[0.0], np.nan)
        return self.values[s]

    def central(self, h):
        """d(h)."""
        return central(self, h)

    def second(self, h):
        """(16 (f(h) + f(-h)) - (f(2h) + f(-2h)) - 30 f(0)) / (12 h^2)."""
        near, far = self(h) + self(-h), self(2 * h) + self(-2 * h)
        return (16 * near - far - 30 * self(0.0)) / (12 * h * h)

    def one_sided_gap(self, h):
        """j(h)."""
        near, far = self(h) + self(-h), self(2 * h) + self(-2 * h)
        return (4 * near - far - 6 * self(0.0)) / (2 * h)

    def rounding(self, h):
        """What rounding of f may add to d(h)."""
        return self.eps * size(self(0.0)) / h


def derivative(f, at_zero, first=FIRST, levels=LEVELS, precision="float64"):
    """df/ds at 0 as a Derivative.

    f          s -> a number or an array
    at_zero    f(0)
    first      the largest step; levels: how many steps, each half of the one before
    precision  of the arithmetic in f
    Raises the exception that f raises at every step.
    """
    line = Line(f, at_zero, float(np.finfo(precision).eps))
    value, spread, h = best_step(line, line.central, 1, first, levels)
    uncertainty = SAFETY * (spread + line.rounding(h))
    with np.errstate(all="ignore"):
        return Derivative(value, uncertainty, h, jump(line, h, uncertainty))


def second_derivative(f, at_zero, first=FIRST, levels=LEVELS, precision="float64"):
    """d2f/ds2 at 0 as a Derivative; the arguments are those of `derivative`."""
    line = Line(f, at_zero, float(np.finfo(precision).eps))
    value, spread, h = best_step(line, line.second, 2, first, levels)
    return Derivative(value, SAFETY * (spread + line.rounding(h) / h), h, 0.0)


def best_step(line, formula, order, first, levels):
    """(estimate, disagreement, h): the middle one of the steps that agree best.

    order  of the derivative: rounding adds c / h^order to an estimate
    """
    steps, found, gaps = [], [], []
    with np.errstate(all="ignore"):
        for level in range(levels):
            steps.append(first * 2.0**-level)
            found.append(formula(steps[-1]))
            if level >= 2:
                gaps.append(disagreement(found[-3:]))
            if gaps and ends(gaps, found):
                break
        spreads = expected_spreads(gaps, found, steps, order)
    best = int(np.argmin(spreads))
    if not np.isfinite(spreads[best]):
        raise line.error or FloatingPointError("values that are not finite beside the point")
    return found[best + 1], float(spreads[best]), steps[best + 1]


def disagreement(three):
    """The largest difference between neighbours of three estimates."""
    return max(size(three[2] - three[1]), size(three[1] - three[0]))


def expected_spreads(gaps, found, steps, order):
    """For each middle step, by how much its estimate may be off.

    That is what it and its neighbours disagree by, or what rounding, as seen at any
    smaller step, amounts to at this one: neighbours can agree by chance. Where f has
    few digits, tiny steps do not change it at all; their zeros agree but say nothing.
    """
    spreads, noise = np.full(len(gaps), np.inf), 0.0
    some = any(a.any() for a in found)
    for i in reversed(range(len(gaps))):
        if some and not any(a.any() for a in found[i : i + 3]):
            continue
        h = steps[i + 1] ** order
        if np.isfinite(gaps[i]):
            noise = max(noise, gaps[i] * h)
            spreads[i] = noise / h
    return spreads


def ends(gaps, found):
    """Whether PATIENCE smaller steps have agreed less than the best three did."""
    best = int(np.argmin(gaps))
    agreed = np.isfinite(gaps[best]) and gaps[best] <= AGREED * size(found[best + 1])
    return agreed and len(gaps) - 1 - best >= PATIENCE


def jump(line, h, uncertainty):
    """The difference of the one-sided derivatives; 0 where it vanishes with h."""
    wide, narrow = line.one_sided_gap(h), line.one_sided_gap(h / 2)
    stays = size(narrow) > size(wide) / STAYS and size(wide - narrow) < size(narrow) / STAYS
    return size(narrow) if stays and size(narrow) > 2 * uncertainty else 0.0


# ---- directions ----------------------------------------------------------------------


def magnitudes(tree, vector):
    """(n,): for each number the root mean square of its array, at least a tenth of all.

    A step along it changes every array by the same share."""
    whole = np.sqrt(np.mean(vector**2)) or 1.0
    out = np.empty(tree.size)
    for leaf in tree.leaves:
        part = vector[leaf.place]
        own = np.sqrt(np.mean(part**2)) if part.size else 0.0
        out[leaf.place] = max(own, whole / 10)
    return out


def balanced(tree, scales, gradient):
    """`scales` with which every array has the same share of a directional derivative.

    Otherwise a small gradient, such as that of a step size, hides behind large ones.
    """
    shares = {
        leaf.name: float(np.linalg.norm((scales * gradient)[leaf.place])) for leaf in tree.leaves
    }
    seen = [share for share in shares.values() if share > HIDDEN * max(shares.values())]
    out = scales.copy()
    for leaf in tree.leaves:
        if shares[leaf.name] in seen:
            out[leaf.place] *= min(seen) / shares[leaf.name]
    return out
