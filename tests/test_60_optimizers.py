"""Outer optimisers and learning-rate schedules against their formulas."""

import numpy as np
import pytest

from refmaml.errors import ArgumentError
from refmaml.training import SGD, Adam, Schedule

EPS = np.finfo(float).eps


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
