"""The outer loop: sample tasks, compute their meta-gradient, update, record."""

import time
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any

import numpy as np

from refmaml.errors import DataError, NonFiniteError, expect
from refmaml.training.distributed import SINGLE_PROCESS
from refmaml.training.meta_step import MetaStep, meta_step, progress_to_device, progress_to_host
from refmaml.training.optimizers import optimizer_state
from refmaml.training.prefetch import prefetch
from refmaml.training.rows import Row, Rows

# The next save waits for at least this many times the duration of the last one, so that
# saving takes at most a twentieth of the time.
MIN_SAVE_PAUSE = 19


@dataclass(frozen=True)
class Recipe:
    """What stays the same from step to step.

    sample     step -> Batch. Tasks come from counters, so that a step's tasks do not
               depend on earlier steps. With several ranks: the tasks of this rank, or
               None
    optimizer  a rule of refmaml.update_rules, see optimizers.py
    schedule   its learning rate: step -> lr
    chunk      tasks in memory at once; None: as many as meta_gradient takes
    ranks      the processes that share the tasks
    meta_step  (recipe, Progress) -> Step, see meta_step.py. On a GPU `train` replaces
               the default by a MetaStep, which replays a CUDA graph
    """

    net: Any
    method: Any
    optimizer: Any
    schedule: Any
    sample: Any
    chunk: int | None = 8
    ranks: Any = SINGLE_PROCESS
    meta_step: Any = meta_step

    def start(self, theta):
        """The Progress at step 0, from initial parameters theta (P,)."""
        meta = self.method.init(self.net, theta)
        return Progress(meta, optimizer_state(self.optimizer, meta))


@dataclass(frozen=True)
class Progress:
    """What changes from step to step: all that a later process needs to continue bit
    for bit.

    meta   (M,)
    state  the optimiser's, {name: array (M,)}
    curve  a Row for each step
    Random numbers have no state: the tasks of step s come from counters that contain s.
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
        """Seconds spent on meta-steps so far."""
        return self.curve[self.step - 1].seconds if self.step else 0.0

    @property
    def rows(self):
        """The curve up to this step.

        Steps of one run share one table, which may hold more.
        """
        return self.curve[: self.step]


def no_op(now):
    """The callback that does nothing."""


def advance(recipe, now):
    """The Progress one meta-step after `now`, which stays unchanged.

    Raises NonFiniteError, naming step, task and layer.
    """
    started, t = time.perf_counter(), now.step + 1
    try:
        after = recipe.meta_step(recipe, now)
    except NonFiniteError as error:
        raise NonFiniteError(f"meta-step {t}: {error}") from None
    accuracy = nan if after.accuracy is None else after.accuracy
    seconds = now.seconds + time.perf_counter() - started
    # A second run from the same start has a table of its own.
    curve = now.curve if len(now.curve) == now.step else Rows(now.rows)
    curve.put(Row(t, after.loss, accuracy, after.norm, seconds, **after.residuals))
    return Progress(after.meta, after.state, curve, t)


def check_limits(steps, minutes):
    """Raise ArgumentError unless `steps` or `minutes` is given."""
    limited = steps is not None or minutes is not None
    expect(limited, "steps", "a number of steps, or of minutes", "neither")


def finished(now, steps, minutes):
    """Whether `steps` were taken or `minutes` were spent since training began; None: no
    limit.
    """
    return (steps is not None and now.step >= steps) or (
        minutes is not None and now.seconds >= 60 * minutes
    )


def train(
    recipe,
    now,
    *,
    steps=None,
    minutes=None,
    show=no_op,
    save=no_op,
    save_every=60.0,
    on_save_error=None,
):
    """Meta-steps from `now` to `steps` or `minutes` in all, earlier runs included.

    show           called with each new Progress
    save           called with a Progress every `save_every` seconds (less often where a
                   save takes long, see MIN_SAVE_PAUSE), at the end, and before a Ctrl-C
                   raises KeyboardInterrupt
    on_save_error  called with the DataError of a periodic save that failed; training
                   goes on. Without it, and at the end, the error is raised

    Returns the last Progress. Raises ArgumentError, DataError, and NonFiniteError
    (naming step, task and layer; nothing is saved then).
    """
    check_limits(steps, minutes)
    kernels, given_on_host = recipe.net.kernels, isinstance(now.meta, np.ndarray)
    if kernels.on_device:  # meta and the optimiser's state stay on the GPU during training
        recipe, now, save = on_device(recipe, now, save)
    try:
        with prefetch(recipe.sample, steps) as sample:
            recipe = replace(recipe, sample=sample)
            saver = PeriodicSave(save, save_every, on_save_error)
            while recipe.ranks.should_continue(not finished(now, steps, minutes)):
                now = advance(recipe, now)
                show(now)
                saver(now)
        save(now)
    except KeyboardInterrupt:
        save(now)
        raise
    return progress_to_host(kernels, now) if kernels.on_device and given_on_host else now


def on_device(recipe, now, save):
    """Recipe, Progress and save of a run on a GPU: `save` gets a Progress with NumPy's
    arrays.
    """
    kernels = recipe.net.kernels
    if recipe.ranks.size == 1 and recipe.meta_step is meta_step:
        recipe = replace(recipe, meta_step=MetaStep())
    return (
        recipe,
        progress_to_device(kernels, now),
        save if save is no_op else lambda now: save(progress_to_host(kernels, now)),
    )


class PeriodicSave:
    """saver(now): saves when it is due; on_save_error gets a DataError, if given."""

    def __init__(self, save, save_every, on_save_error):
        self.save, self.save_every, self.on_save_error = save, save_every, on_save_error
        self.due = time.monotonic() + save_every

    def __call__(self, now):
        started = time.monotonic()
        if started < self.due:
            return
        try:
            self.save(now)
        except DataError as error:
            if self.on_save_error is None:
                raise
            self.on_save_error(error)
        done = time.monotonic()
        self.due = done + max(self.save_every, MIN_SAVE_PAUSE * (done - started))
