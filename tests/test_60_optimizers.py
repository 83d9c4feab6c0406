"""Outer optimisers and learning-rate schedules against their formulas."""

import numpy as np
import pytest

from refmaml import update_rules
from refmaml.errors import ArgumentError
from refmaml.models import mlp
from refmaml.training import SGD, Adam, Schedule, optimizer_state, optimizers, update
from refmaml.update_rules import Adagrad, AdamW, Clip, RMSprop

EPS = np.finfo(float).eps
NET = mlp((1, 5, 1))  # 16 parameters; an optimiser reads its kernels and named arrays


def test_adam_is_its_formula_with_the_moving_averages_written_as_sums():
    rng, b1, b2, eps, lr = np.random.default_rng(0), 0.9, 0.99, 1e-3, 0.1
    theta, gradients = rng.standard_normal(4), rng.standard_normal((7, 4))
    adam, meta = Adam((b1, b2), eps), theta
    state = optimizer_state(adam, meta)
    for t, g in enumerate(gradients, start=1):
        meta, state = update(NET, adam, meta, g, state, t, lr)
        past = gradients[:t]
        ages = np.arange(t)[::-1, None]
        m = (1 - b1) * (b1**ages * past).sum(0) / (1 - b1**t)
        v = (1 - b2) * (b2**ages * past**2).sum(0) / (1 - b2**t)
        theta = theta - lr * m / (np.sqrt(v) + eps)
        # some 10 roundings for each of t steps, of numbers near 1
        assert np.abs(meta - theta).max() <= 10 * t * EPS


def test_the_first_step_of_adam_has_length_lr_whatever_the_gradient():
    g = np.array([1e-3, -1.0, 1e3])
    state = optimizer_state(Adam(), g)
    meta, _ = update(NET, Adam(eps=1e-30), np.zeros(3), g, state, 1, 0.5)
    assert np.abs(meta - [-0.5, 0.5, -0.5]).max() <= 4 * EPS


def test_sgd_on_theta_minus_phi_walks_towards_phi():
    theta, phi = np.array([1.0, 2.0]), np.array([3.0, -2.0])
    assert update(NET, SGD(), theta, theta - phi, {}, 1, 0.25)[0].tolist() == [1.5, 1.0]


RULES = [
    SGD(),
    SGD(momentum=0.9, nesterov=True),
    SGD(momentum=0.9, dampening=0.1, weight_decay=0.01),
    Adam(),
    AdamW(),
    RMSprop(momentum=0.9, centered=True),
    Adagrad(initial_accumulator_value=0.1),
    Clip(Adam(), norm=0.5),
    Clip(SGD(), value=0.05),
    Clip(SGD(momentum=0.9), norm=0.1, per_tensor=True),
]


@pytest.mark.parametrize("extra", [0, 4], ids=["theta", "theta and step sizes"])
@pytest.mark.parametrize("optimizer", RULES, ids=str)
def test_an_update_keeps_the_precision_and_leaves_its_arguments_alone(optimizer, extra):
    meta = np.ones(NET.num_params + extra, np.float32)
    grad = np.linspace(-0.1, 0.2, len(meta)).astype(np.float32)
    state = optimizer_state(optimizer, meta)
    before = {name: a.copy() for name, a in state.items()}
    after, new = update(NET, optimizer, meta, grad, state, 1, 0.1)
    assert after.dtype == np.float32 and all(a.dtype == np.float32 for a in new.values())
    assert after.shape == meta.shape == next(iter(new.values()), meta).shape
    assert list(new) == list(state) and (after != meta).any()
    assert (meta == 1).all() and all((state[name] == before[name]).all() for name in state)
    assert not np.shares_memory(after, meta)


def adam_of_older_versions(meta, grad, state, t, lr):
    """The update of earlier checkpoints, evaluated from the left."""
    m = 0.9 * state["m"] + (1 - 0.9) * grad
    v = 0.999 * state["v"] + (1 - 0.999) * grad * grad
    unbiased_m, unbiased_v = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return meta - lr * unbiased_m / (np.sqrt(unbiased_v) + 1e-8), {"m": m, "v": v}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", [Adam(), Clip(Adam(), norm=1e9)], ids=["adam", "clip"])
def test_adam_has_the_bits_of_earlier_versions(optimizer, dtype):
    rng = np.random.default_rng(3)
    meta = rng.standard_normal(200).astype(dtype)
    state = optimizer_state(optimizer, meta)
    other, kept = meta, {name: np.zeros_like(meta) for name in ("m", "v")}
    for t in range(1, 30):
        g = (rng.standard_normal(200) * (rng.random(200) < 0.9)).astype(dtype)  # zeros too
        meta, state = update(NET, optimizer, meta, g, state, t, 1e-3)
        other, kept = adam_of_older_versions(other, g, kept, t, 1e-3)
        assert meta.tobytes() == other.tobytes()
        assert all(state[name].tobytes() == kept[name].tobytes() for name in kept)


@pytest.mark.parametrize("optimizer", RULES, ids=str)
def test_an_update_is_a_step_of_length_lr_along_the_rule_s_direction(optimizer):
    rng = np.random.default_rng(4)
    meta, state = rng.standard_normal((1, 16)), optimizer.init(np.zeros((1, 16)))
    for t in (1, 2, 3):
        g = rng.standard_normal((1, 16))
        d, after = optimizer.direction(NET, meta, g, state, optimizer.factors(t))
        flat = {name: a[0] for name, a in state.items()}
        found, new = update(NET, optimizer, meta[0], g[0], flat, t, 0.1)
        meta, state = meta - 0.1 * d, after
        assert np.abs(found - meta[0]).max() <= 4 * EPS * np.abs(meta).max()
        assert all((new[name] == after[name][0]).all() for name in after)


def test_factors_may_be_arrays_of_one_entry_as_in_a_cuda_graph():
    rng = np.random.default_rng(5)
    meta, grad = rng.standard_normal(16), rng.standard_normal(16)
    for optimizer in RULES:
        state = {n: a + 0.5 for n, a in optimizer_state(optimizer, meta).items()}
        numbers = optimizers.factors(optimizer, 3, 0.1)
        arrays = [np.array([a]) for a in numbers]
        pair = [optimizers.step(NET, optimizer, meta, grad, state, f) for f in (numbers, arrays)]
        assert (pair[0][0] == pair[1][0]).all() and pair[1][0].shape == (16,)


def test_a_gradient_exactly_at_its_limit_is_clipped_without_a_complaint():
    """Nothing is differentiated here, so two derivatives at a limit do not matter."""
    g = np.array([0.5, -2.0, 0.25])
    after, _ = update(NET, Clip(SGD(), value=0.5), np.zeros(3), g, {}, 1, 1.0)
    assert after.tolist() == [-0.5, 0.5, -0.25]


def test_learned_step_sizes_are_one_more_array_when_each_array_is_clipped():
    meta = np.zeros(NET.num_params + 2)
    g = np.concatenate([np.zeros(NET.num_params), [3.0, 4.0]])
    clip = Clip(SGD(), norm=1.0, per_tensor=True)
    after, _ = update(NET, clip, meta, g, {}, 1, 1.0)
    assert np.abs(after[-2:] + np.array([0.6, 0.8])).max() < 1e-6  # torch's 1e-6 beside the norm


def test_training_has_no_optimisers_of_its_own():
    assert SGD is update_rules.SGD and Adam is update_rules.Adam


@pytest.mark.parametrize(
    "name, values",
    [(r"betas\[0\]", {"betas": (1.0, 0.9)}), (r"betas\[1\]", {"betas": (0.9, -0.1)}),
     ("eps", {"eps": 0.0})],
)  # fmt: skip
def test_adam_refuses_what_its_formula_cannot_take(name, values):
    with pytest.raises(ArgumentError, match=f"{name}: expected"):
        Adam(**values)


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
