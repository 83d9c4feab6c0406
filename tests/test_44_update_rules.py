"""Update rules in the inner loop: the complex step, closed forms, and edges."""

from dataclasses import replace

import numpy as np
import pytest
from modern_net import modern_case

import refmaml as rm
from refmaml import update_rules
from refmaml.oracles import inner_rules, meta_objectives, method_checks, rule_checks
from refmaml.oracles.tolerance import relative_error

PROMISE = 1e-12
MOMENTUM = rm.SGD(momentum=0.8, nesterov=True, weight_decay=0.05)
ADAM = rm.Adam((0.8, 0.95), eps=0.01)
CLIP = rm.Clip(ADAM, norm=0.2)
RECURSIVE = [
    rm.MAML(0.05, 3),
    rm.ANIL(0.05, 3),
    rm.MetaSGD(0.05, 3),
    rm.MAMLPlusPlus(0.05, 3),
    rm.CAVIA(0.05, 3),
]
FIRST_ORDER = [rm.FirstOrderMAML(0.05, 3), rm.FirstOrderANIL(0.05, 3)]


def name_of(value):
    """The name of a rule or a method in a test's identifier."""
    if isinstance(value, rm.UpdateRule):
        return method_checks.rule_text(value)
    return method_checks.describe(value)


def case_of(method):
    """(net, meta, batch) without kinks; CAVIA gets a context."""
    net, theta, batch = rule_checks.smooth_case(isinstance(method, rm.CAVIA))
    return net, method.init(net, theta), batch


def check_of(method):
    return method_checks.meta_gradient_check(method, *case_of(method))


# ---- against the complex step through formulas that share no code --------------------


@pytest.mark.parametrize("method", rule_checks.rule_methods(), ids=name_of)
def test_maml_with_a_rule_is_the_derivative_of_the_loss_after_its_steps(method):
    check = check_of(method)
    assert check.passed and check.error < PROMISE, check


@pytest.mark.slow
@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_a_rule_on_a_net_with_group_norm_gelu_and_a_residual_block(rule):
    method = rm.MAML(0.05, 5, rule=rule)
    check = method_checks.meta_gradient_check(method, *modern_case())
    assert check.passed and check.error < PROMISE, check


def test_every_public_rule_and_every_number_and_flag_of_it_is_on_the_ladder():
    rules = list(rule_checks.RULES)
    rules += [rule.rule for rule in rules if isinstance(rule, rm.Clip)]
    assert {type(rule).__name__ for rule in rules} == set(update_rules.__all__)
    for name in update_rules.__all__:
        kind = getattr(update_rules, name)
        for field in kind.__dataclass_fields__.values():
            used = [getattr(rule, field.name) for rule in rules if type(rule) is kind]
            assert any(value != field.default for value in used), (name, field.name)


@pytest.mark.parametrize("rule", [MOMENTUM, CLIP], ids=name_of)
@pytest.mark.parametrize("method", RECURSIVE + FIRST_ORDER, ids=name_of)
def test_every_method_with_an_inner_loop_takes_a_rule_and_an_anchor(method, rule):
    check = check_of(replace(method, rule=rule, anchor=0.3, inner_batch=4))
    assert check.passed and check.error < PROMISE, check


def test_meta_sgd_s_step_sizes_get_minus_the_direction_times_lambda():
    method = rm.MetaSGD(0.05, 3, rule=ADAM)
    net, meta, batch = case_of(method)
    truth = method_checks.truth_by_steps(method, net, meta, batch)[net.num_params :]
    out = method.meta_gradient(net, meta, batch, trace=True)
    assert relative_error(out.grad[net.num_params :], truth) < PROMISE
    plain = -sum(
        (g * lam).mean(axis=0)
        for g, lam in zip(out.trace["inner_grad"], out.trace["lam"][1:], strict=True)
    )
    assert relative_error(plain, truth) > 0.1  # the gradient in the direction's place is wrong


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=name_of)
def test_reptile_and_adaptation_end_where_the_formulas_end(rule):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.Reptile((0.05, 0.03, 0.02), 3, rule=rule, anchor=0.2, inner_batch=4)
    truth = meta_objectives.reptile(net, method, theta, batch)
    assert relative_error(method.meta_gradient(net, theta, batch).grad, truth) < 1e-13
    maml = rm.MAML(0.05, 3, rule=rule)
    rates = meta_objectives.fixed_rates(net, maml)
    W = np.repeat(theta[None], len(batch), axis=0)
    phi = meta_objectives.inner_loop(net, W, rates, batch.x_support, batch.y_support, maml)[-1]
    assert relative_error(maml.adapt(net, theta, batch.x_support, batch.y_support), phi) < 1e-13


def test_the_first_step_of_a_rule_without_memory_is_its_formula_by_hand():
    """The oracle's formulas are held against numbers that a reader can compute."""
    g, phi = np.array([[3.0, -4.0]]), np.array([[1.0, 2.0]])
    net = rm.Quadratic(2)
    expected = {
        rm.SGD(0.9, weight_decay=0.5): [3.5, -3.0],
        rm.Adam(eps=1.0): [3 / 4, -4 / 5],
        rm.AdamW(eps=1.0, weight_decay=0.5): [3 / 4 + 0.5, -4 / 5 + 1.0],
        rm.RMSprop(0.75, eps=0.5): [3 / 2, -4 / 2.5],
        rm.Adagrad(eps=1.0, initial_accumulator_value=0.0): [3 / 4, -4 / 5],
        rm.Clip(rm.SGD(), norm=2.5): [3 * 2.5 / 5.000001, -4 * 2.5 / 5.000001],
        rm.Clip(rm.SGD(), value=3.5): [3.0, -3.5],
    }
    for rule, direction in expected.items():
        by_oracle = inner_rules.direction(rule, net, phi, g, {}, 1)
        by_rule, _ = rule.direction(net, phi, g, rule.init(phi), rule.factors(1))
        assert np.allclose([by_oracle[0], by_rule[0]], direction, rtol=1e-15), rule


def test_a_rule_of_one_s_own_is_checked_by_its_own_direction():
    class Cubed(rm.UpdateRule):
        def direction(self, net, phi, g, state, factors):
            return g**3, state

        def pullback(self, net, dd, dstate, phi, g, state, factors):
            back = super().pullback(net, dd, dstate, phi, g, state, factors)
            return back._replace(grad=3 * g**2 * dd)

    class Wrong(Cubed):
        def pullback(self, net, dd, dstate, phi, g, state, factors):
            back = super().pullback(net, dd, dstate, phi, g, state, factors)
            return back._replace(grad=back.grad * 1.001)

    assert check_of(rm.MAML(0.5, 3, rule=Cubed())).error < PROMISE
    assert not check_of(rm.MAML(0.5, 3, rule=Wrong())).passed


# ---- iMAML, whose solution does not depend on the rule -------------------------------


@pytest.mark.parametrize(
    "rule,lr,steps",
    [(rm.SGD(0.5), 0.2, 120), (rm.SGD(0.5, nesterov=True), 0.2, 120), (rm.SGD(), 0.2, 120)],
    ids=str,
)
def test_imaml_s_solution_does_not_depend_on_the_rule_that_finds_it(rule, lr, steps):
    net, theta, batch = rule_checks.smooth_case()
    settings = {"cg_steps": 100, "cg_tol": 1e-15}
    found = rm.IMAML(2.0, steps, lr, rule=rule, **settings).meta_gradient(net, theta, batch)
    newton = rm.IMAML(2.0, 40, solver="newton_cg", **settings).meta_gradient(net, theta, batch)
    assert relative_error(found.grad, newton.grad) < PROMISE
    assert (found.report["inner_residual"] < 1e-12).all()


def test_imaml_with_adam_comes_closer_to_the_solution_with_every_step():
    net, theta, batch = rule_checks.smooth_case()
    residuals = [
        rm.IMAML(2.0, steps, 0.01, rule=rm.Adam(eps=0.1))
        .meta_gradient(net, theta, batch)
        .report["inner_residual"]
        .max()
        for steps in (5, 50, 500)
    ]
    assert residuals[0] > 10 * residuals[1] > 1e3 * residuals[2]
