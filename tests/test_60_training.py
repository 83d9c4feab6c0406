"""The training loop against its parts."""

import math
import statistics
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from clock import Clock
from small_training import recipe as small_recipe
from small_training import waves

import refmaml as rm
from refmaml import IMAML, MAML, Sinusoids, TwoLayerLinear
from refmaml.errors import ArgumentError, NonFiniteError
from refmaml.models import mlp, two_layer_linear
from refmaml.training import (
    SGD,
    Adam,
    Progress,
    Recipe,
    Schedule,
    advance,
    evaluate,
    train,
    trainer,
    update,
)

EPS = np.finfo(float).eps


def sinusoid_recipe(optimizer=None, lr=1e-2, dtype=np.float32):
    tasks = Sinusoids()
    return Recipe(
        mlp((1, 5, 1), "tanh"),
        MAML(0.01),
        optimizer or Adam(),
        Schedule(lr),
        lambda step: tasks.sample(3, seed=1, step=step, dtype=dtype),
        chunk=2,
    )


def start(recipe, dtype=np.float32):
    return recipe.start(recipe.net.init(0, dtype))


def same_bits(a, b):
    """Whether two Progresses have the same bits, without the seconds."""
    return (
        a.step == b.step
        and a.meta.tobytes() == b.meta.tobytes()
        and a.state.keys() == b.state.keys()
        and all(a.state[k].tobytes() == b.state[k].tobytes() for k in a.state)
        and [row[:2] + row[3:4] for row in a.rows] == [row[:2] + row[3:4] for row in b.rows]
    )


def test_a_meta_step_is_sample_gradient_update_and_log():
    recipe = sinusoid_recipe()
    before = start(recipe)
    after = advance(recipe, before)
    out = recipe.method.meta_gradient(recipe.net, before.meta, recipe.sample(0))
    meta, state = update(recipe.net, Adam(), before.meta, out.grad, before.state, 1, 1e-2)
    assert (
        (after.meta == meta).all() and (after.state["v"] == state["v"]).all() and before.step == 0
    )
    row = after.rows[0]
    assert row.step == 1 and row.loss == out.loss and math.isnan(row.accuracy) and row.seconds > 0
    # a sum of 16 squares, once in double precision and once by the BLAS
    assert abs(row.grad_norm - np.linalg.norm(out.grad.astype(float))) <= 16 * EPS * row.grad_norm


def test_ten_steps_and_ten_more_are_twenty_steps_bit_for_bit():
    recipe = sinusoid_recipe()
    whole = train(recipe, start(recipe), steps=20)
    half = train(recipe, start(recipe), steps=10)
    assert same_bits(train(recipe, half, steps=20), whole)


def test_resuming_without_the_optimisers_state_is_noticed():
    recipe = sinusoid_recipe()
    whole = train(recipe, start(recipe), steps=20)
    half = train(recipe, start(recipe), steps=10)
    forgetful = Progress(half.meta, recipe.optimizer.init(half.meta), half.rows, half.step)
    assert not same_bits(train(recipe, forgetful, steps=20), whole)


def test_two_runs_from_one_start_keep_their_curves(monkeypatch):
    monkeypatch.setattr(
        trainer, "time", SimpleNamespace(perf_counter=partial(next, count()), monotonic=Clock())
    )
    recipe, other = sinusoid_recipe(), sinusoid_recipe(lr=1e-3)
    begin = train(recipe, start(recipe), steps=2)
    alone = train(recipe, train(recipe, start(recipe), steps=2), steps=7)
    first, second = train(recipe, begin, steps=7), train(other, begin, steps=4)
    assert (
        same_bits(first, alone)
        and len(first.rows) == 7
        and len(second.rows) == 4
        and len(begin.rows) == 2
    )
    assert (
        first.rows.table[:2].tobytes()
        == second.rows.table[:2].tobytes()
        == begin.rows.table.tobytes()
    )
    assert first.rows[3].loss != second.rows[3].loss
    # A step takes a second on this clock. The seconds of the other run are not counted.
    assert [[row.seconds for row in run.rows] for run in (first, second)] == [
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4],
    ]


def test_ctrl_c_saves_complete_steps_only_and_is_raised_again():
    recipe, saved = sinusoid_recipe(), []
    whole = train(recipe, start(recipe), steps=6)

    def stop(now):
        if now.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, start(recipe), steps=6, show=stop, save=saved.append)
    assert [p.step for p in saved] == [4] and len(saved[0].rows) == 4
    assert same_bits(train(recipe, saved[0], steps=6), whole)


def test_an_interrupt_in_the_middle_of_a_step_undoes_that_step():
    def sample(step):
        if step == 3:
            raise KeyboardInterrupt
        return Sinusoids().sample(3, seed=1, step=step)

    whole, saved = sinusoid_recipe(), []
    broken = Recipe(whole.net, whole.method, whole.optimizer, whole.schedule, sample, whole.chunk)
    with pytest.raises(KeyboardInterrupt):
        train(broken, start(broken), steps=6, save=saved.append)
    assert saved[0].step == 3
    assert same_bits(train(whole, saved[0], steps=6), train(whole, start(whole), steps=6))


def test_minutes_are_minutes_of_training_in_all():
    recipe = sinusoid_recipe()
    once = train(recipe, start(recipe), minutes=1e-9)
    assert once.step == 1
    assert train(recipe, once, minutes=1e-9).step == 1
    assert train(recipe, once, steps=3, minutes=10).step == 3


def test_training_without_an_end_is_refused():
    recipe = sinusoid_recipe()
    with pytest.raises(
        ArgumentError, match="steps: expected a number of steps, or of minutes, got neither"
    ):
        train(recipe, start(recipe))


def test_a_checkpoint_is_saved_every_so_often_and_at_the_end(monkeypatch):
    monkeypatch.setattr(trainer, "MIN_SAVE_PAUSE", 0)  # independent of how long a save takes
    recipe, saved = sinusoid_recipe(), []
    train(recipe, start(recipe), steps=3, save=lambda now: saved.append(now.step), save_every=0)
    assert saved == [1, 2, 3, 3]


@pytest.mark.parametrize("lr, where", [(1e25, "meta-step 2: "), (1e39, "meta-step 1: the update")])
def test_numbers_that_overflow_name_the_step(lr, where):
    recipe = sinusoid_recipe(SGD(), lr)
    with pytest.raises(NonFiniteError, match=f"^{where}"):
        train(recipe, start(recipe), steps=5)


def test_a_cg_residual_is_the_largest_of_the_steps_tasks():
    recipe = replace(sinusoid_recipe(), method=IMAML(2.0, 3, cg_steps=2))
    begin = start(recipe)
    now = advance(recipe, begin)
    report = recipe.method.meta_gradient(recipe.net, begin.meta, recipe.sample(0)).report
    assert now.rows[0].cg_residual == report["cg_residual"].max() > report["cg_residual"].min()


def test_the_curve_has_mean_median_and_95th_percentile_of_the_inner_residual():
    recipe = replace(sinusoid_recipe(), method=IMAML(2.0, 3, cg_steps=2))
    begin = start(recipe)
    row = advance(recipe, begin).rows[0]
    report = recipe.method.meta_gradient(recipe.net, begin.meta, recipe.sample(0)).report
    values = np.sort(report["inner_residual"])
    n = len(values)
    assert row.inner_residual == values.astype(float).mean()
    assert row.inner_residual_median == values[-(-n // 2) - 1]
    assert row.inner_residual_p95 == values[-(-95 * n // 100) - 1]
    plain = advance(sinusoid_recipe(), begin).rows[0]
    assert np.isnan([plain.inner_residual, plain.inner_residual_p95, plain.cg_residual]).all()


def test_maml_learns_the_subspace_that_linear_tasks_share():
    tasks = TwoLayerLinear(10, 2)
    recipe = Recipe(
        two_layer_linear(10, 2),
        MAML(0.1),
        Adam(),
        Schedule(1e-2),
        lambda step: tasks.sample(8, step=step, dtype=np.float64),
    )
    rows = train(recipe, start(recipe, np.float64), steps=150).rows
    first, last = (statistics.mean(row.loss for row in part) for part in (rows[:20], rows[-20:]))
    assert last < first / 2


def with_dropout():
    """A recipe on a net with dropout."""
    layers = [rm.Linear(1, 6), rm.Tanh(), rm.Dropout(0.5), rm.Linear(6, 1)]
    return replace(small_recipe(waves), net=rm.Sequential(layers, rm.MSE(), (1,)))


def test_each_meta_step_has_dropout_masks_of_its_own():
    recipe = with_dropout()
    net, now = recipe.net, start(recipe)
    for step in range(2):
        masked = net.with_dropout_seed(step)
        wanted = recipe.method.meta_gradient(masked, now.meta, recipe.sample(step)).loss
        before, now = now, advance(recipe, now)
        assert now.rows.column("loss")[step] == wanted
    assert recipe.method.meta_gradient(net, before.meta, recipe.sample(1)).loss != wanted


def test_evaluation_drops_nothing():
    recipe = with_dropout()
    meta = recipe.net.init(0)

    def values(net):
        sample = partial(Sinusoids().sample, seed=2, step=0)
        return evaluate(net, recipe.method, meta, sample, 4).values

    assert np.array_equal(values(recipe.net), values(recipe.net.evaluation()))
    with_masks = recipe.method.meta_gradient(recipe.net, meta, waves(0)).loss
    assert with_masks != recipe.method.meta_gradient(recipe.net.evaluation(), meta, waves(0)).loss
