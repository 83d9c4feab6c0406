"""The outer loop: sample tasks, take their meta-gradient, update, log; and again."""

import time
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np

from refmaml.errors import DataError, NonFiniteError, expect
from refmaml.training.distributed import ALONE
from refmaml.training.meta_step import MetaStep, brought, take, taken_back
from refmaml.training.prefetch import ahead
from refmaml.training.rows import Row, Rows

# A save is put off until it has been 19 times as long ago as the last one took: a twentieth of the time is the most that saving may cost.
APART = 19


@dataclass(frozen=True)
class Recipe:
    """What stays the same from step to step.

    sample     step -> Batch; tasks come from counters, so a step's tasks do not depend on the steps before
    optimizer  of refmaml.training.optimizers; schedule gives its learning rate: step -> lr
    chunk      how many tasks are in memory at once; None: as meta_gradient has it
    ranks      who computes them; `sample` gives those of this rank, or None where it has none
    take       (recipe, Progress) -> Step: see meta_step.py; on a GPU `train` has a MetaStep instead of the default, which replays a graph
    """

    net: Any
    method: Any
    optimizer: Any
    schedule: Any
    sample: Any
    chunk: int | None = 8
    ranks: Any = ALONE
    take: Any = take

    def start(self, theta):
        """Step 0, at the initial parameters theta (P,)."""
        meta = self.method.init(self.net, theta)
        return Progress(meta, self.optimizer.init(meta))


@dataclass(frozen=True)
class Progress:
    """What changes from step to step, and all that a later process needs to go on bit for bit.

    meta (M,), the optimizer's state {name: array (M,)}, and the learning curve, a Row for each step taken. Random numbers have no state:
    the tasks of step s come from counters that hold s.
    """

    meta: np.ndarray
    state: dict
    curve: Rows = field(default_factory=Rows)
    step: int = 0

    def __post_init__(self):
        if not isinstance(self.curve, Rows):
            object.__setattr__(self, "curve", Rows(self.curve))

    @property
    def seconds(self):
        """Spent on meta-steps so far."""
        return self.curve[self.step - 1].seconds if self.step else 0.0

    @property
    def rows(self):
        """The curve up to this step. Successive steps of a run share one table, which may already hold more."""
        return self.curve[: self.step]


def advance(recipe, now):
    """The Progress one meta-step after `now`, which stays as it was. Raises NonFiniteError, naming step, task and layer."""
    started, t = time.perf_counter(), now.step + 1
    try:
        after = recipe.take(recipe, now)
    except NonFiniteError as error:
        raise NonFiniteError(f"meta-step {t}: {error}") from None
    accuracy = nan if after.accuracy is None else after.accuracy
    seconds = now.seconds + time.perf_counter() - started
    curve = (
        now.curve if len(now.curve) == now.step else Rows(now.rows)
    )  # a second run from the same start has a table of its own
    curve.put(Row(t, after.loss, accuracy, after.norm, seconds, after.residual))
    return Progress(after.meta, after.state, curve, t)


def finished(now, steps, minutes):
    """Whether `steps` have been taken, or `minutes` spent, since training began; None is no limit."""
    return (steps is not None and now.step >= steps) or (
        minutes is not None and now.seconds >= 60 * minutes
    )


def train(
    recipe, now, *, steps=None, minutes=None, show=None, save=None, save_every=60.0, trouble=None
):
    """Meta-steps from `now` until `steps` have been taken or `minutes` spent on them, earlier runs included.

    show        called with each new Progress
    save        called with a Progress every `save_every` seconds or, where saving takes long, somewhat more seldom (APART), at the end,
                and before a Ctrl-C goes on as KeyboardInterrupt
    trouble     called with the DataError of a save that failed on the way; the next is tried in its time. Without it, and at the end,
                the error is raised
    The next step's tasks are sampled in a thread while this one's meta-gradient is computed.
    Returns the last Progress. Raises ArgumentError, NonFiniteError (naming step, task and layer; nothing is saved then), DataError.
    """
    expect(
        steps is not None or minutes is not None,
        "steps",
        "a number of steps, or of minutes",
        "neither",
    )
    save, show = save or ignore, show or ignore
    kernels, home, keep = recipe.net.kernels, isinstance(now.meta, np.ndarray), save
    if kernels.on_device:  # from here on meta and the optimiser's state stay on the GPU
        replayed = MetaStep() if recipe.ranks.size == 1 and recipe.take is take else recipe.take
        recipe, now = replace(recipe, take=replayed), brought(kernels, now)
        save = save if save is ignore else lambda now: keep(taken_back(kernels, now))
    try:
        with ahead(recipe.sample, steps) as sample:
            recipe, due = replace(recipe, sample=sample), time.monotonic() + save_every
            while recipe.ranks.go_on(not finished(now, steps, minutes)):
                now = advance(recipe, now)
                show(now)
                if time.monotonic() >= due:
                    due = save_on_the_way(save, now, save_every, trouble)
        save(now)
    except KeyboardInterrupt:
        save(now)
        raise
    return taken_back(kernels, now) if kernels.on_device and home else now


def save_on_the_way(save, now, save_every, trouble):
    """Save, or tell of the trouble; returns when the next save is due."""
    started = time.monotonic()
    try:
        save(now)
    except DataError as error:
        if trouble is None:
            raise
        trouble(error)
    done = time.monotonic()
    return done + max(save_every, APART * (done - started))


def ignore(now):
    """What is called where nobody asked to be."""
