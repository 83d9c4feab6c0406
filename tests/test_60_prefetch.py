"""Tasks that a thread samples before their step."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_training import bits, recipe, start, waves

from refmaml import Batch
from refmaml.training import train, trainer
from refmaml.training.prefetch import MAX_BYTES, MAX_STEPS, prefetch


def test_sampling_ahead_changes_no_bit(monkeypatch):
    from contextlib import nullcontext

    early = [
        bits(train(recipe(waves, chunk), start(recipe(waves)), steps=40)) for chunk in (1, 2, 8)
    ]
    monkeypatch.setattr(trainer, "prefetch", lambda sample, steps: nullcontext(sample))
    assert early == [bits(train(recipe(waves), start(recipe(waves)), steps=40))] * 3


def test_a_thread_samples_each_later_step_once_and_none_beyond_the_end():
    where = []

    def sample(step):
        where.append((step, threading.current_thread() is threading.main_thread()))
        return waves(step)

    before = threading.active_count()
    train(recipe(sample), start(recipe(sample)), steps=37)
    assert (
        sorted(where) == [(0, True)] + [(step, False) for step in range(1, 37)]
        and threading.active_count() == before
    )


def test_the_next_steps_tasks_are_sampled_while_a_step_computes():
    """The wait for the next step's tasks ends before this step does."""
    begun = [threading.Event() for _ in range(60)]

    def sample(step):
        begun[step].set()
        return waves(step)

    with prefetch(sample, 60) as prepared:
        for step in range(59):
            prepared(step)
            assert begun[step + 1].wait(timeout=30)


def test_few_large_batches_are_held_at_once():
    alive, most = set(), []

    class Large:
        nbytes = MAX_BYTES // 2

    def sample(step):
        alive.add(step)
        most.append(len(alive))
        return Large()

    with prefetch(sample) as prepared:
        for step in range(30):
            prepared(step)
            time.sleep(0.001)
            alive.discard(step)
    assert 2 <= max(most) <= 4 < MAX_STEPS


def test_an_exception_of_sampling_in_the_thread_is_raised_at_its_step():
    def sample(step):
        if step == 7:
            raise ZeroDivisionError("step 7")
        return waves(step)

    steps, saved = [], []
    with pytest.raises(ZeroDivisionError, match="step 7"):
        train(
            recipe(sample),
            start(recipe(sample)),
            steps=20,
            show=lambda now: steps.append(now.step),
            save=saved.append,
        )
    assert steps == list(range(1, 8)) and saved == []


def test_steps_out_of_order_are_sampled_all_the_same():
    with prefetch(lambda step: Batch(*[np.full((1, 2), step)] * 4)) as sample:
        assert [int(sample(step).x_query[0, 0]) for step in (4, 5, 9, 0, 1, 2, 30, 31)] == [
            4,
            5,
            9,
            0,
            1,
            2,
            30,
            31,
        ]


class ThreadClock:
    """A clock of each thread's own: `sleep` lets time pass in the calling thread only.

    So work of another thread takes none of the main thread's time, whatever else the
    machine does.
    """

    def __init__(self):
        self.local = threading.local()

    def __call__(self):
        return getattr(self.local, "now", 0.0)

    def sleep(self, seconds):
        self.local.now = self() + seconds


class SlowMethod:
    """A method whose gradients take 20 ms."""

    def __init__(self, method, clock):
        self.method, self.clock = method, clock

    def __getattr__(self, name):
        return getattr(self.method, name)

    def task_gradients(self, *arguments):
        self.clock.sleep(0.02)
        return self.method.task_gradients(*arguments)


def test_the_time_outside_the_engine_is_smaller_where_a_thread_samples(
    reliability, monkeypatch, tmp_path
):
    """outside.py with a sampler that takes half of the engine's time."""
    import outside

    from refmaml.cli import options

    make, clock = outside.problem.make_recipe, ThreadClock()
    for module in (outside, trainer):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=clock, monotonic=clock))

    def slow(*arguments):
        recipe = make(*arguments)
        return replace(
            recipe,
            method=SlowMethod(recipe.method, clock),
            sample=lambda step: clock.sleep(0.01) or recipe.sample(step),
        )

    monkeypatch.setattr(outside.problem, "make_recipe", slow)
    config = options.settle({"data": "sinusoid", "kernels": "reference"})
    ahead, in_line = (
        outside.measure(config, {}, 1.5, 60, tmp_path, line)["outside"] for line in (False, True)
    )
    # With the thread, only the first step's tasks are sampled in line.
    assert 0 < ahead < 0.05 and abs(in_line - 0.01 / 0.03) <= 1e-3
