"""Meta-gradients of policies as recipes: a form, and the mistakes tried with it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from refmaml.checks.rl.forms import NAIVE, RIGHT_FORMS, WRONG_FORMS, Derivatives, Form
from refmaml.checks.rl.probe import A, H, N, Probe
from refmaml.rl.trajectories import Trajectories

SCALES = (0.0, -1.0, N, 1 / N, H, 1 / H, N * H, 1 / (N * H), A, 1 / A, 2.0, 0.5)


class Recipe(NamedTuple):
    """One way to compute a meta-gradient; the defaults are without a mistake.

    form         of the inner objective, and of the meta-objective
    first_order  the Hessians are left out
    independent  the Hessians are those of the batches `second`
    m            a factor of every log-probability
    scale        a factor of the inner steps
    outer        the batch of the meta-loss: None, the outer one, or k, the inner one k
    old          ratios compare with the batch's log-probabilities; False: with the
                 detached ones of the pass. It matters where phi is not the right one
    plain_outer  the meta-objective is naive, whatever the form
    """

    form: Form = NAIVE
    first_order: bool = False
    independent: bool = False
    m: float = 1.0
    scale: float = 1.0
    outer: int | None = None
    old: bool = False
    plain_outer: bool = False

    @property
    def mistakes(self) -> int:
        """How many fields are wrong."""
        wrong_form = self.form not in RIGHT_FORMS
        return wrong_form + (self.m != 1) + (self.scale != 1) + (self.outer is not None)


class Answer(NamedTuple):
    """base (T, P): a recipe's gradients; scores (T, P): sum_n grad log pi_n, pulled
    back to theta, whose multiples E-MAML adds."""

    base: np.ndarray
    scores: np.ndarray


class Pass:
    """F of one batch at w (T or 1, P): gradient (T, P) and Hessian-vector products."""

    def __init__(
        self, probe: Probe, recipe: Recipe, batch: Trajectories, w: np.ndarray, form: Form
    ) -> None:
        q = batch.rewards if form.rewards else batch.advantages
        q = q.reshape(len(q), -1) / (N * H if probe.over == "steps" else N)
        old = batch.log_probs.reshape(q.shape) if recipe.old else None
        self.policy, self.F = probe.policy, Derivatives(form, q, old, recipe.m)
        self.here = self.policy.forward(w, batch.states, batch.actions)
        self.l = self.here.log_probs.reshape(q.shape)
        first = self.F.first(self.l).reshape(self.here.log_probs.shape)
        self.back = self.policy.backward(self.here, first)
        ones = np.full(first.shape, recipe.m)
        self.score = self.policy.backward(self.here, ones).grad

    def hvp(self, v: np.ndarray) -> np.ndarray:
        """The Hessian times v (T, P)."""
        along = self.policy.r_forward(self.here, v)
        second = self.F.second(self.l, along.log_probs.reshape(self.l.shape))
        return self.policy.r_backward(self.back, along, second.reshape(self.here.log_probs.shape))


def computed(probe: Probe, recipe: Recipe) -> Answer:
    """What a recipe gives on a probe. A wrong factor may make it overflow."""
    with np.errstate(all="ignore"):
        return unrolled(probe, recipe)


def unrolled(probe: Probe, recipe: Recipe) -> Answer:
    """`computed` without care for overflow."""
    rate, phi = probe.rate * recipe.scale, probe.theta[None]
    steps = []
    for batch, second in zip(probe.inner, probe.second, strict=True):
        here = Pass(probe, recipe, batch, phi, recipe.form)
        other = Pass(probe, recipe, second, phi, recipe.form) if recipe.independent else here
        steps.append((here, other))
        phi = phi + rate * here.back.grad
    batch = probe.outer if recipe.outer is None else probe.inner[recipe.outer]
    lam = Pass(probe, recipe, batch, phi, NAIVE if recipe.plain_outer else recipe.form).back.grad
    scores = 0 * lam
    for here, other in reversed(steps):
        if not recipe.first_order:
            lam, scores = lam + rate * other.hvp(lam), scores + rate * other.hvp(scores)
        scores = scores + here.score
    return Answer(lam, scores)


def starts(wrong_forms: bool) -> Iterator[Recipe]:
    """Recipes without any other mistake than a wrong form."""
    if wrong_forms:
        for form in WRONG_FORMS:
            yield from (Recipe(form), Recipe(form, plain_outer=True))
            yield Recipe(form, first_order=True)
        return
    for form in RIGHT_FORMS:
        yield Recipe(form)
    yield Recipe(first_order=True)
    for form in RIGHT_FORMS:
        yield Recipe(form, independent=True)


def variants(recipe: Recipe, steps: int) -> Iterator[Recipe]:
    """A recipe with one more mistake."""
    for old in (False, True) if recipe.form.ratio else (False,):
        yield recipe._replace(m=1 / A, old=old)
        for k in range(steps):
            yield recipe._replace(outer=k, old=old)
        for scale in SCALES:
            yield recipe._replace(scale=scale, old=old)


def recipes(steps: int) -> Iterator[Recipe]:
    """All recipes for K inner steps, those with fewer mistakes first."""
    yield from starts(False)
    yield from starts(True)
    right = list(starts(False))
    for recipe in right:
        yield from variants(recipe, steps)
    for recipe in right[:4]:
        for k in range(steps):
            for old in (False, True):
                yield recipe._replace(m=1 / A, outer=k, old=old)
    for recipe in starts(True):
        yield recipe._replace(m=1 / A)
