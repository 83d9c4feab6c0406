"""Hypergradients: dM/d(step sizes, fields of the rule, anchor, iMAML's strength)."""

from dataclasses import replace

import numpy as np
import pytest
from update_rule_cases import case_of, name_of, quadratic

import refmaml as rm
from refmaml.oracles import complex_step, inner_rules, method_checks, rule_checks
from refmaml.oracles.tolerance import relative_error

PROMISE = 1e-12
MOMENTUM = rm.SGD(momentum=0.9, dampening=0.2, weight_decay=0.05)


@pytest.mark.parametrize(
    "method", [method for method, _ in rule_checks.hyper_methods()], ids=name_of
)
def test_every_hypergradient_is_the_complex_step_through_the_oracle_s_loop(method):
    for check in rule_checks.hypergradient_checks(method, *case_of(method)):
        assert check.passed and check.error < PROMISE, check


def test_the_names_are_those_of_the_fields_and_their_shapes_those_of_the_values():
    net, theta, batch = rule_checks.smooth_case()
    rule = rm.Clip(rm.Adam(eps=0.01), norm=0.2)
    method = rm.MAML((0.05, 0.03), 2, rule=rule, anchor=0.1)
    hyper = method.meta_gradient(net, theta, batch, hyper=True).hyper
    shapes = {"inner_lr": (2,), "anchor": (), "norm": (), "betas": (2,), "eps": ()}
    shapes |= {"eps_root": (), "weight_decay": ()}
    assert {name: np.shape(value) for name, value in hyper.items()} == shapes
    numbers = inner_rules.hyperparameters(method)
    assert {name: a.shape for name, a in numbers.items()} == shapes


def test_clips_within_clips_have_names_of_their_own():
    net, theta, batch = rule_checks.smooth_case()
    rule = rm.Clip(rm.Clip(rm.Clip(rm.SGD(), norm=0.4), norm=0.3), norm=0.2)
    method = rm.MAML(0.05, 2, rule=rule)
    hyper = method.meta_gradient(net, theta, batch, hyper=True).hyper
    assert {name for name in hyper if "norm" in name} == {"norm", "rule.norm", "rule.rule.norm"}
    for check in rule_checks.hypergradient_checks(method, net, theta, batch):
        assert check.passed, check
    rule = rm.Clip(rm.Adagrad(initial_accumulator_value=0.1, eps=0.01), value=0.05)
    hyper = rm.MAML(0.05, 2, rule=rule).meta_gradient(net, theta, batch, hyper=True).hyper
    assert {"value", "initial_accumulator_value"} <= hyper.keys()


def test_the_gradient_of_one_step_size_is_the_sum_over_its_steps():
    net, theta, batch = rule_checks.smooth_case()
    one = rm.MAML(0.05, 3, rule=MOMENTUM).meta_gradient(net, theta, batch, hyper=True).hyper
    each = rm.MAML((0.05,) * 3, 3, rule=MOMENTUM).meta_gradient(net, theta, batch, hyper=True)
    assert relative_error(each.hyper["inner_lr"].sum(), one["inner_lr"]) < 1e-14


@pytest.mark.parametrize("kind", [rm.MetaSGD, rm.MAMLPlusPlus])
def test_learned_step_sizes_are_no_hyperparameters(kind):
    method = kind(0.05, 2, rule=MOMENTUM)
    hyper = method.meta_gradient(*case_of(method), hyper=True).hyper
    assert "inner_lr" not in hyper and "momentum" in hyper


@pytest.mark.parametrize("method", [rm.FirstOrderMAML(0.1), rm.Reptile(0.1), rm.ERM()])
def test_methods_that_do_not_differentiate_their_inner_loop_have_none(method):
    with pytest.raises(rm.ArgumentError, match="^hyper: expected a method that differentiates"):
        method.meta_gradient(*case_of(method), hyper=True)


# ---- closed forms --------------------------------------------------------------------


def test_the_step_size_of_one_parameter_has_a_closed_form():
    """phi_K = (1 - a h)^K w for the centre 0, and M = h phi_K^2 / 2."""
    a, h, K, w = 0.1, 2.0, 5, 1.5
    A, c = np.array([[[h]]]), np.zeros((1, 1))
    out = rm.MAML(a, K).meta_gradient(
        rm.Quadratic(1), np.array([w]), rm.Batch(A, c, A, c), hyper=True
    )
    truth = -K * h * (1 - a * h) ** (K - 1) * w * h * (1 - a * h) ** K * w
    assert abs(out.hyper["inner_lr"] / truth - 1) < 1e-14


def test_the_anchor_s_strength_has_the_derivative_of_the_closed_form():
    """phi_K - (h c + s theta)/(h + s) shrinks by 1 - a (h + s) in each step."""
    net, theta, batch = quadratic()
    a, s, K = 0.1, 0.6, 7

    def loss(s):
        total = 0
        for t in range(len(batch)):
            A, c, B, d = (x[t] for x in batch.arrays)
            h, Q = np.linalg.eigh(A)
            fixed = (h * (Q.T @ c) + s * (Q.T @ theta)) / (h + s)
            r = Q @ (fixed + (1 - a * (h + s)) ** K * (Q.T @ theta - fixed)) - d
            total = total + r @ B @ r / 2
        return total / len(batch)

    out = rm.MAML(a, K, anchor=s).meta_gradient(net, theta, batch, hyper=True)
    truth = complex_step.derivative(loss(s + 1j * complex_step.H))
    assert abs(out.hyper["anchor"] / truth - 1) < PROMISE


CONVERGED = {"inner_steps": 40, "solver": "newton_cg", "cg_steps": 100, "cg_tol": 1e-15}


def ridge(strength, seed=0):
    """(net, batch, dM/dlambda) of ridge regression, M being half the query error."""
    rng = np.random.default_rng(seed)
    X, y, Xq, yq = (rng.standard_normal(shape) for shape in ((20, 6), (20, 1), (15, 6), (15, 1)))
    net = rm.Sequential([rm.Linear(6, 1, bias=False)], rm.MSE(factor=0.5), (6,))
    A = X.T @ X / 20 + strength * np.eye(6)
    w = np.linalg.solve(A, X.T @ y / 20)
    q = Xq.T @ (Xq @ w - yq) / 15
    truth = -(np.linalg.solve(A, q) * w).sum()
    return net, rm.Batch(X[None], y[None], Xq[None], yq[None]), truth


@pytest.mark.parametrize("strength", [0.05, 0.7, 5.0])
def test_the_strength_of_ridge_regression_has_its_hypergradient_in_closed_form(strength):
    """iMAML anchored at 0 on a linear net is ridge regression with lambda/2 |w|^2."""
    net, batch, truth = ridge(strength)
    method = rm.IMAML(strength, **CONVERGED)
    out = method.meta_gradient(net, np.zeros(6), batch, hyper=True)
    assert abs(out.hyper["regularization"] / truth - 1) < PROMISE
    assert list(out.hyper) == ["regularization"]


def test_imaml_s_strength_agrees_with_the_complex_step_where_some_parameters_are_frozen():
    net, theta, batch = rule_checks.smooth_case()
    for settings in ({}, {"frozen": ("BatchNorm2d",)}, {"adapts": ("head",)}):
        method = rm.IMAML(2.0, inner_lr=0.2, **CONVERGED, **settings)
        (check,) = rule_checks.hypergradient_checks(method, net, theta, batch)
        assert check.passed and check.error < PROMISE, (settings, check)
        with_rule = replace(
            method, solver="gradient_descent", inner_steps=120, rule=rm.SGD(momentum=0.5)
        )
        (check,) = rule_checks.hypergradient_checks(with_rule, net, theta, batch)
        assert check.passed and check.error < PROMISE, (settings, check)


def test_a_hypergradient_moves_the_loss_as_it_says():
    """One plain difference of losses, far coarser than the other checks."""
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.05, 3, rule=rm.Adam(eps=0.01))
    out, h = method.meta_gradient(net, theta, batch, hyper=True), 1e-4
    up, down = (
        replace(method, inner_lr=0.05 + e).meta_gradient(net, theta, batch).loss for e in (h, -h)
    )
    assert abs((up - down) / (2 * h) / out.hyper["inner_lr"] - 1) < 1e-4
    assert "MAML" in method_checks.describe(method)
