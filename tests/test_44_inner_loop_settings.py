"""Step sizes that differ, mini-batches, memory, precision, and what adapts."""

from dataclasses import replace

import numpy as np
import pytest
from test_44_update_rules import ADAM, PROMISE, check_of, name_of

import refmaml as rm
from refmaml.oracles import cases, meta_objectives, rule_checks
from refmaml.oracles.tolerance import relative_error

# ---- step sizes that differ, mini-batches, memory ------------------------------------


def test_a_list_of_equal_step_sizes_has_the_bits_of_the_number():
    net, theta, batch = rule_checks.smooth_case()
    for rule in (rm.UpdateRule(), ADAM):
        one, several = (
            rm.MAML(lr, 3, rule=rule).meta_gradient(net, theta, batch)
            for lr in (0.05, [0.05, 0.05, 0.05])
        )
        assert one.grad.tobytes() == several.grad.tobytes()
    assert rm.MAML([0.1, 0.2], 2).inner_lr == (0.1, 0.2)
    assert rm.MAML(np.array([0.1, 0.2]), 2) == rm.MAML((0.1, 0.2), 2)


def test_maml_plus_plus_starts_its_step_sizes_from_a_list():
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAMLPlusPlus((0.1, 0.05), 2)
    meta = method.init(net, theta)
    _, alpha = method.unpack(net, meta)
    assert (alpha == [[0.1] * len(net.blocks), [0.05] * len(net.blocks)]).all()
    assert check_of(method).error < PROMISE


def test_each_step_sees_its_own_mini_batch_and_the_order_follows_the_seed():
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.1, 4, inner_batch=3)
    first, second, third, fourth = method.mini_batches(6)
    assert sorted([*first, *second]) == sorted([*third, *fourth]) == list(range(6))
    phi = theta[None]
    for places in (first, second, third, fourth):
        x, y = batch.x_support[:, places], batch.y_support[:, places]
        phi = phi - 0.1 * net.gradient(np.broadcast_to(phi, (len(batch), phi.shape[1])), x, y)
    assert relative_error(method.adapt(net, theta, batch.x_support, batch.y_support), phi) < 1e-13
    other = replace(method, order_seed=1)
    assert any(
        (a != b).any() for a, b in zip(other.mini_batches(6), method.mini_batches(6), strict=True)
    )
    whole = rm.MAML(0.1, 4).meta_gradient(net, theta, batch)
    all_of_it = rm.MAML(0.1, 4, inner_batch=6).meta_gradient(net, theta, batch)
    assert whole.grad.tobytes() == all_of_it.grad.tobytes()


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_recomputing_and_chunks_of_tasks_do_not_change_a_bit(rule):
    net, theta, _ = rule_checks.smooth_case()
    batch = cases.tasks_for(net, np.random.default_rng(1), tasks=5)
    method = rm.MAML((0.05, 0.02, 0.04), 3, rule=rule, **rule_checks.SETTINGS)
    whole = method.meta_gradient(net, theta, batch, hyper=True)
    others = [
        replace(method, recompute=True).meta_gradient(net, theta, batch, hyper=True),
        *(method.meta_gradient(net, theta, batch, chunk=n, hyper=True) for n in (1, 2)),
    ]
    for other in others:
        assert other.grad.tobytes() == whole.grad.tobytes()
        assert other.hyper.keys() == whole.hyper.keys()
        assert all(np.array_equal(other.hyper[n], a) for n, a in whole.hyper.items())
    plain = method.meta_gradient(net, theta, batch)
    assert plain.grad.tobytes() == whole.grad.tobytes() and plain.hyper == {}


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_single_precision_is_close_to_double_precision(rule):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.05, 3, rule=rule)
    exact = method.meta_gradient(net, theta, batch, hyper=True)
    single = method.meta_gradient(net, theta.astype(np.float32), batch, hyper=True)
    assert single.grad.dtype == np.float32
    assert relative_error(single.grad, exact.grad) < 1e-5
    for name, value in exact.hyper.items():
        # 1 - beta^t has an error of eps / (1 - beta); sums over parameters cancel
        assert relative_error(single.hyper[name], value) < 1e-3, name


# ---- what adapts ---------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"adapts": ("head",)}, {"frozen": ("BatchNorm2d",)}])
def test_the_norm_of_clip_is_over_the_parameters_that_adapt(settings):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.5, 1, rule=rm.Clip(norm=0.01), **settings)
    mask = meta_objectives.adapt_mask(net, method)
    W = np.repeat(theta[None], len(batch), axis=0)
    g = mask * net.gradient(W, batch.x_support, batch.y_support)
    size = np.sqrt((g**2).sum(axis=1, keepdims=True))
    assert (size > 0.01).all()
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    assert relative_error(phi, W - 0.5 * g * 0.01 / (size + 1e-6)) < 1e-14
    check = check_of(replace(method, inner_steps=3))
    assert check.passed and check.error < PROMISE, check


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_what_does_not_adapt_stays_whatever_the_rule(rule):
    """Weight decay and momentum move nothing that does not adapt."""
    net, theta, batch = rule_checks.smooth_case()
    method = rm.ANIL(0.1, 3, rule=rule)
    body = meta_objectives.adapt_mask(net, method) == 0
    phi = method.adapt(net, theta, batch.x_support, batch.y_support)
    assert (phi[:, body] == theta[body]).all() and (phi[:, ~body] != theta[~body]).all()
