"""The outer loop: sample tasks, take their meta-gradient, update, log; and again."""
import time
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any, NamedTuple

import numpy as np

from refmaml.errors import NonFiniteError, expect
from refmaml.training.ranks import ALONE


class Row(NamedTuple):
    """One step of the learning curve: query loss and accuracy after adaptation, means over the step's tasks.

    step         1, 2, ...
    accuracy     a fraction; NaN for regression
    grad_norm    |meta-gradient|, before the update
    seconds      spent on meta-steps since training began, pauses between runs left out
    cg_residual  the largest |b - A u| / |b| that conjugate gradients left in a task; NaN for methods without them
    """
    step: int
    loss: float
    accuracy: float
    grad_norm: float
    seconds: float
    cg_residual: float = nan


FEWEST = Row._fields[:-1]                               # what every curve has


def columns(rows):
    """The names of the columns that rows fill: a CG residual only where there is one."""
    return FEWEST if all(isnan(row.cg_residual) for row in rows) else Row._fields


@dataclass(frozen=True)
class Recipe:
    """What stays the same from step to step.

    sample     step -> Batch; tasks come from counters, so a step's tasks do not depend on the steps before
    optimizer  of refmaml.training.optimizers; schedule gives its learning rate: step -> lr
    chunk      how many tasks are in memory at once
    ranks      who computes them; `sample` gives those of this rank, or None where it has none
    """
    net: Any
    method: Any
    optimizer: Any
    schedule: Any
    sample: Any
    chunk: int = 8
    ranks: Any = ALONE

    def start(self, theta):
        """Step 0, at the initial parameters theta (P,)."""
        meta = self.method.init(self.net, theta)
        return Progress(meta, self.optimizer.init(meta))


@dataclass(frozen=True)
class Progress:
    """What changes from step to step, and all that a later process needs to go on bit for bit.

    meta (M,), the optimizer's state {name: array (M,)}, and the learning curve, a Row for each step taken.
    """
    meta: np.ndarray
    state: dict
    curve: list = field(default_factory=list)
    step: int = 0

    @property
    def seconds(self):
        """Spent on meta-steps so far."""
        return self.curve[self.step - 1].seconds if self.step else 0.0

    @property
    def rows(self):
        """The curve up to this step. Successive steps share one list, which may already hold more."""
        return self.curve[:self.step]


def advance(recipe, now):
    """The Progress one meta-step after `now`, which stays as it was. Raises NonFiniteError."""
    started, t = time.perf_counter(), now.step + 1
    try:
        out = recipe.ranks.meta_gradient(recipe.method, recipe.net, now.meta, recipe.sample(now.step), recipe.chunk)
        with np.errstate(all="ignore"):                   # an overflow is found and named, not warned about
            meta, state = recipe.optimizer.update(now.meta, out.grad, now.state, t, recipe.schedule(now.step))
        if not np.isfinite(meta).all():
            raise NonFiniteError(f"the update: expected finite parameters, got {(~np.isfinite(meta)).sum()} "
                                 "non-finite ones (a smaller lr may help)")
    except NonFiniteError as error:
        raise NonFiniteError(f"meta-step {t}: {error}") from None
    accuracy = nan if out.accuracy is None else float(out.accuracy)
    norm = float(np.sqrt(np.square(out.grad, dtype=np.float64).sum()))
    residual = float(out.report["cg_residual"].max()) if "cg_residual" in out.report else nan
    seconds = now.seconds + time.perf_counter() - started
    now.curve[now.step:] = [Row(t, float(out.loss), accuracy, norm, seconds, residual)]
    return Progress(meta, state, now.curve, t)


def finished(now, steps, minutes):
    """Whether `steps` have been taken, or `minutes` spent, since training began; None is no limit."""
    return (steps is not None and now.step >= steps) or (minutes is not None and now.seconds >= 60 * minutes)


def train(recipe, now, *, steps=None, minutes=None, show=None, save=None, save_every=60.0):
    """Meta-steps from `now` until `steps` have been taken or `minutes` spent on them, earlier runs included.

    show        called with each new Progress
    save        called with a Progress every `save_every` seconds, at the end, and before a Ctrl-C goes on as
                KeyboardInterrupt
    Returns the last Progress. Raises ArgumentError, NonFiniteError (naming the step).
    """
    expect(steps is not None or minutes is not None, "steps", "a number of steps, or of minutes", "neither")
    save, show = save or ignore, show or ignore
    saved = time.monotonic()
    try:
        while recipe.ranks.go_on(not finished(now, steps, minutes)):
            now = advance(recipe, now)
            show(now)
            if time.monotonic() - saved >= save_every:
                save(now)
                saved = time.monotonic()
    except KeyboardInterrupt:
        save(now)
        raise
    save(now)
    return now


def ignore(now):
    """What is called where nobody asked to be."""
