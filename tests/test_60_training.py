"""Training: optimisers against formulas, the loop against its parts, evaluation against plain statistics."""

import math
import statistics
from dataclasses import replace
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from clock import Clock

from refmaml import (
    ERM,
    IMAML,
    MAML,
    MSE,
    Batch,
    CrossEntropy,
    Sequential,
    Sinusoids,
    TwoLayerLinear,
)
from refmaml.errors import ArgumentError, NonFiniteError
from refmaml.layers import Linear
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
    """Parameters, optimiser state and curve of two Progresses, but for the seconds."""
    return (
        a.step == b.step
        and a.meta.tobytes() == b.meta.tobytes()
        and a.state.keys() == b.state.keys()
        and all(a.state[k].tobytes() == b.state[k].tobytes() for k in a.state)
        and [row[:2] + row[3:4] for row in a.rows] == [row[:2] + row[3:4] for row in b.rows]
    )


# ---- optimisers --------------------------------------------------------------------------------------------


def test_adam_is_its_formula_with_the_moving_averages_written_as_sums():
    rng, b1, b2, eps, lr = np.random.default_rng(0), 0.9, 0.99, 1e-3, 0.1
    theta, gradients = rng.standard_normal(4), rng.standard_normal((7, 4))
    adam, meta = Adam(b1, b2, eps), theta
    state = adam.init(meta)
    for t, g in enumerate(gradients, start=1):
        meta, state = adam.update(meta, g, state, t, lr)
        past = gradients[:t]
        ages = np.arange(t)[::-1, None]
        m = (1 - b1) * (b1**ages * past).sum(0) / (1 - b1**t)
        v = (1 - b2) * (b2**ages * past**2).sum(0) / (1 - b2**t)
        theta = theta - lr * m / (np.sqrt(v) + eps)
        # some 10 roundings for each of t steps, of numbers near 1
        assert np.abs(meta - theta).max() <= 10 * t * EPS


def test_the_first_step_of_adam_has_length_lr_whatever_the_gradient():
    g = np.array([1e-3, -1.0, 1e3])
    meta, _ = Adam(eps=1e-30).update(np.zeros(3), g, Adam().init(g), 1, 0.5)
    assert np.abs(meta - [-0.5, 0.5, -0.5]).max() <= 4 * EPS


def test_sgd_on_theta_minus_phi_walks_towards_phi():
    theta, phi = np.array([1.0, 2.0]), np.array([3.0, -2.0])
    assert SGD().update(theta, theta - phi, {}, 1, 0.25)[0].tolist() == [1.5, 1.0]


@pytest.mark.parametrize("optimizer", [SGD(), Adam()])
def test_an_update_keeps_the_precision_and_leaves_its_arguments_alone(optimizer):
    meta, grad = np.ones(3, np.float32), np.full(3, 0.1, np.float32)
    state = optimizer.init(meta)
    after, new = optimizer.update(meta, grad, state, 1, 0.1)
    assert after.dtype == np.float32 and all(a.dtype == np.float32 for a in new.values())
    assert (meta == 1).all() and all((a == 0).all() for a in state.values())
    assert not np.shares_memory(after, meta)


@pytest.mark.parametrize("field, value", [("beta1", 1.0), ("beta2", -0.1), ("eps", 0.0)])
def test_adam_refuses_what_its_formula_cannot_take(field, value):
    with pytest.raises(ArgumentError, match=f"{field}: expected"):
        Adam(**{field: value})


def test_schedules_are_lines_and_cosines_from_lr_to_zero():
    linear, cosine = Schedule(2.0, "linear", 8), Schedule(2.0, "cosine", 8)
    assert [linear(s) for s in (0, 4, 7)] == [2.0, 1.0, 0.25]
    assert cosine(0) == 2.0 and abs(cosine(4) - 1.0) <= EPS
    assert cosine(2) > linear(2) and cosine(6) < linear(6)
    assert Schedule(2.0)(10**9) == 2.0


def test_a_schedule_that_ends_needs_to_know_when():
    with pytest.raises(
        ArgumentError, match="steps: expected a number of steps for the linear schedule"
    ):
        Schedule(1.0, "linear")


# ---- the loop ----------------------------------------------------------------------------------------------


def test_a_meta_step_is_sample_gradient_update_and_log():
    recipe = sinusoid_recipe()
    before = start(recipe)
    after = advance(recipe, before)
    out = recipe.method.meta_gradient(recipe.net, before.meta, recipe.sample(0))
    meta, state = Adam().update(before.meta, out.grad, before.state, 1, 1e-2)
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


def test_going_on_without_the_optimisers_state_would_be_noticed():
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
    # A step takes a second on this clock, and what the other run took is not counted.
    assert [[row.seconds for row in run.rows] for run in (first, second)] == [
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3, 4],
    ]


def test_ctrl_c_saves_whole_steps_only_and_goes_on_as_an_interrupt():
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
    monkeypatch.setattr(trainer, "APART", 0)  # however long a save takes
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


# ---- evaluation --------------------------------------------------------------------------------------------


def held_out(tasks):
    return Sinusoids().sample(tasks, seed=3, step=2**64 - 1)


def test_mean_and_interval_are_those_of_the_task_losses():
    net = mlp((1, 5, 1), "tanh")
    theta = net.init(0)
    result = evaluate(net, MAML(0.01), theta, held_out, 7, chunk=3)
    losses = [
        float(
            net.loss(MAML(0.01).adapt(net, theta, b.x_support, b.y_support), b.x_query, b.y_query)[
                0
            ]
        )
        for b in (held_out(range(t, t + 1)) for t in range(7))
    ]
    assert result.quantity == "loss" and result.values.tolist() == losses
    # two ways to sum seven numbers
    assert abs(result.mean - statistics.mean(losses)) <= 8 * EPS * result.mean
    half = 1.96 * statistics.stdev(losses) / math.sqrt(7)
    assert abs(result.interval - half) <= 16 * EPS * half
    assert str(result) == f"loss {result.mean:.4g} +- {result.interval:.2g}"


def test_accuracy_is_counted_after_adaptation_on_the_query_set_alone():
    net = Sequential([Linear(1, 2)], CrossEntropy(), (1,))
    theta = np.array([1.0, -1.0, 0.0, 0.0])  # says 0 for x > 0, else 1
    x = np.array([[[1.0], [2.0], [-1.0], [-2.0]], [[1.0], [1.0], [1.0], [1.0]]])
    y = np.array([[0, 0, 1, 0], [0, 0, 0, 0]])
    result = evaluate(
        net, ERM(), theta, lambda tasks: Batch(-x, y, x, y)[tasks.start : tasks.stop], 2
    )
    assert result.quantity == "accuracy" and result.values.tolist() == [0.75, 1.0]
    assert str(result) == f"accuracy 87.50 +- {100 * result.interval:.2f} %"


def test_more_inner_steps_fit_a_linear_task_better():
    net, tasks = mlp((3, 1), loss=MSE()), TwoLayerLinear(3, 3)
    losses = [
        evaluate(net, MAML(0.1, steps), np.zeros(4), partial(tasks.sample, step=9), 20).mean
        for steps in (1, 3, 10, 100)
    ]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.05 * losses[0]


def test_an_interval_needs_two_tasks():
    net = mlp((1, 5, 1))
    with pytest.raises(ArgumentError, match="tasks: expected an integer >= 2"):
        evaluate(net, ERM(), net.init(0), held_out, 1)
