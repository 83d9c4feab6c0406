"""Which recipe an answer is, up to an overall factor and the score term's factors.

On a probe, an answer y (P,) is compared with a recipe's gradients b_t and scores S_t:

    y = a mean_t b_t                        or  y = a mean_t b_t + mean_t kappa_t S_t

P = 30 numbers decide over at most 1 + T = 3 unknown ones. E-MAML's term has kappa_t =
J_t, the return after adaptation, or J_t less a baseline that is the same in all tasks.
"""

from typing import NamedTuple

import numpy as np

from refmaml.checks.factors import common
from refmaml.checks.rl.probe import Probe, T
from refmaml.checks.rl.recipes import Answer, Recipe, computed, recipes

AGREE = 1e-4  # relative: factors of different probes this close are one
PRESENT = 1e-5  # a score term whose share of the answer is smaller is rounding


class Fit(NamedTuple):
    """A recipe that explains the answers on all probes.

    factor    a: the answers are a times the recipe
    score     None: without a score term; otherwise kappa / J, or NaN where they are not
              proportional
    baseline  kappa is J less the same number in each task
    agree     relative: how closely factors are known
    """

    recipe: Recipe
    factor: float
    score: float | None = None
    baseline: bool = False
    agree: float = AGREE

    @property
    def wrong_factor(self) -> bool:
        """Whether a is not 1."""
        return abs(self.factor - 1) > self.agree

    @property
    def exact_score(self) -> bool:
        """Whether the score term is absent or right."""
        return self.score is None or self.baseline or abs(self.score - 1) <= self.agree

    @property
    def mistakes(self) -> int:
        """How many mistakes this explanation has."""
        return self.recipe.mistakes + self.wrong_factor + (not self.exact_score)


class OnProbe(NamedTuple):
    """a, and kappa (T,) or None, on one probe."""

    factor: float
    kappa: np.ndarray | None


def on_probe(y: np.ndarray, answer: Answer, tol: float) -> OnProbe | None:
    """The best fit on one probe, without a score term if that is enough."""
    size, b = np.linalg.norm(y), answer.base.mean(axis=0)
    if not (np.isfinite(answer.base).all() and np.isfinite(answer.scores).all() and b.any()):
        return None
    a = float(b @ y / (b @ b))
    error = float(np.linalg.norm(y - a * b) / size)
    if error <= tol:
        return OnProbe(a, None)
    columns = np.stack([b, *answer.scores / T], axis=1)
    x = np.linalg.lstsq(columns, y, rcond=None)[0]
    error = float(np.linalg.norm(y - columns @ x) / size)
    share = np.linalg.norm(columns[:, 0] * x[0]) / size
    if error > tol or share < PRESENT:
        return None
    return OnProbe(float(x[0]), x[1:])


def fitted(ys: list, probes: list[Probe], recipe: Recipe, tol: float) -> Fit | None:
    """The Fit of a recipe, or None where it does not explain an answer."""
    found: list[OnProbe] = []
    for y, probe in zip(ys, probes, strict=True):
        one = on_probe(y, computed(probe, recipe), tol)
        if one is None or (found and (one.kappa is None) != (found[0].kappa is None)):
            return None
        found.append(one)
    agree = max(AGREE, 10 * tol)
    factor = common([one.factor for one in found], agree)
    if factor is None:
        return None
    if found[0].kappa is None:
        return Fit(recipe, factor, agree=agree)
    kappas = [one.kappa / factor for one in found if one.kappa is not None]
    return Fit(recipe, factor, *score_of(kappas, probes, agree), agree)


def score_of(kappas: list, probes: list[Probe], agree: float) -> tuple[float, bool]:
    """(kappa / J, whether kappa is J less a baseline) over all probes."""
    returns = [probe.mean_return() for probe in probes]
    ratio = common(np.concatenate([k / J for k, J in zip(kappas, returns, strict=True)]), agree)
    if ratio is not None:
        return ratio, False
    off = [k - J for k, J in zip(kappas, returns, strict=True)]
    same = all(np.ptp(d) <= agree * np.abs(J).max() for d, J in zip(off, returns, strict=True))
    return float("nan"), same


def explained(ys: list, probes: list[Probe], tol: float) -> Fit | None:
    """The Fit with the fewest mistakes, or None."""
    best: Fit | None = None
    for recipe in recipes(len(probes[0].inner)):
        if best is not None and recipe.mistakes >= best.mistakes:
            continue
        found = fitted(ys, probes, recipe, tol)
        if found is not None and (best is None or found.mistakes < best.mistakes):
            best = found
            if not best.mistakes:
                break
    return best
