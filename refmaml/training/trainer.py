"""The outer loop: sample tasks, take their meta-gradient, update, log; and again."""
import time
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, NamedTuple

import numpy as np

from refmaml.errors import NonFiniteError, expect
from refmaml.training.meta_step import MetaStep, brought, take, taken_back


class Row(NamedTuple):
    """One step of the learning curve: query loss and accuracy after adaptation, means over the step's tasks.

    step       1, 2, ...
    accuracy   a fraction; NaN for regression
    grad_norm  |meta-gradient|, before the update
    seconds    spent on meta-steps since training began, pauses between runs left out
    """
    step: int
    loss: float
    accuracy: float
    grad_norm: float
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """What stays the same from step to step.

    sample     step -> Batch; tasks come from counters, so a step's tasks do not depend on the steps before
    optimizer  of refmaml.training.optimizers; schedule gives its learning rate: step -> lr
    chunk      how many tasks are in memory at once; None: as meta_gradient has it
    take       (recipe, Progress) -> Step: see meta_step.py
    """
    net: Any
    method: Any
    optimizer: Any
    schedule: Any
    sample: Any
    chunk: int | None = 8
    take: Any = take

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
        after = recipe.take(recipe, now)
    except NonFiniteError as error:
        raise NonFiniteError(f"meta-step {t}: {error}") from None
    accuracy = nan if after.accuracy is None else after.accuracy
    seconds = now.seconds + time.perf_counter() - started
    now.curve[now.step:] = [Row(t, after.loss, accuracy, after.norm, seconds)]
    return Progress(after.meta, after.state, now.curve, t)


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
    kernels, home = recipe.net.kernels, isinstance(now.meta, np.ndarray)
    saved, keep = time.monotonic(), save
    if kernels.far:                                       # from here on meta and the optimiser's state stay on the GPU
        recipe, now = replace(recipe, take=MetaStep()), brought(kernels, now)
        save = save if save is ignore else lambda now: keep(taken_back(kernels, now))
    try:
        while not finished(now, steps, minutes):
            now = advance(recipe, now)
            show(now)
            if time.monotonic() - saved >= save_every:
                save(now)
                saved = time.monotonic()
    except KeyboardInterrupt:
        save(now)
        raise
    save(now)
    return taken_back(kernels, now) if kernels.far and home else now


def ignore(now):
    """What is called where nobody asked to be."""
