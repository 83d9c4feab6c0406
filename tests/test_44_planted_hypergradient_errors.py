"""Errors planted in the hypergradients of update rules: the ladder names each."""

from functools import cache

import numpy as np
import pytest
from planted_rules import ADAGRAD, ADAM, BY_NORM, BY_VALUE, NESTEROV, RMSPROP, SGD, wrong

import refmaml as rm
from refmaml.oracles import rule_checks
from refmaml.oracles.tolerance import relative_error


def nesterov_s_own_share_forgotten(self, net, dd, dstate, phi, g, state, t):
    right = rm.SGD.hypergradients(self, net, dd, dstate, phi, g, state, t)
    after = self.direction(net, phi, g, state, self.factors(t))[1]
    return {**right, "momentum": right["momentum"] - (dd * after["m"]).sum(axis=1)}


def dampening_in_the_first_step(self, net, dd, dstate, phi, g, state, t):
    right = rm.SGD.hypergradients(self, net, dd, dstate, phi, g, state, t)
    dm = self.buffer_adjoint(dd, dstate)
    return {**right, "dampening": -(dm * self.decayed(phi, g)).sum(axis=1)}


def correction_as_a_constant(self, net, dd, dstate, phi, g, state, t):
    right = rm.Adam.hypergradients(self, net, dd, dstate, phi, g, state, t)
    a = self.moments(net, phi, g, state, self.factors(t))
    b1 = self.betas[0]
    own = (dd * a.mh / a.D).sum(axis=1) * t * b1 ** (t - 1) / (1 - b1**t)
    return {**right, "betas": right["betas"] - np.stack([own, 0 * own], axis=1)}


def only_the_last_step(self, net, dd, dstate, phi, g, state, t):
    right = type(self).__mro__[1].hypergradients(self, net, dd, dstate, phi, g, state, t)
    return {name: a * (not dstate) for name, a in right.items()}


def times(name, factor):
    """One hypergradient multiplied."""

    def hypergradients(self, *arguments):
        right = type(self).__mro__[1].hypergradients(self, *arguments)
        return {**right, name: factor * right[name]}

    return hypergradients


HYPER = [
    (NESTEROV, "momentum", nesterov_s_own_share_forgotten),
    (SGD, "dampening", dampening_in_the_first_step),
    (SGD, "weight_decay", times("weight_decay", 1.001)),
    (ADAM, "betas", correction_as_a_constant),
    (ADAM, "eps", times("eps", -1)),
    (ADAM, "eps_root", times("eps_root", 2)),
    (ADAM, "weight_decay", only_the_last_step),
    (RMSPROP, "alpha", only_the_last_step),
    (RMSPROP, "momentum", times("momentum", 0)),
    (RMSPROP, "eps_root", times("eps_root", 2)),
    (ADAGRAD, "lr_decay", times("lr_decay", -1)),
    (ADAGRAD, "initial_accumulator_value", times("initial_accumulator_value", 0)),
    (ADAGRAD, "eps", only_the_last_step),
    (BY_NORM, "norm", only_the_last_step),
    (BY_NORM, "momentum", times("momentum", 1.001)),
    (BY_VALUE, "value", times("value", -1)),
]


@cache
def hyper_truth_of(rule):
    """dM/d(hyperparameter) with the right rule, by the oracle's formulas."""
    net, theta, batch = rule_checks.smooth_case()
    return rule_checks.hyper_truth(rm.MAML(0.05, 4, rule=rule), net, theta, batch)


@pytest.mark.parametrize(
    "rule,name,function",
    [pytest.param(*case, id=f"{type(case[0]).__name__}, {case[1]}") for case in HYPER],
)
def test_a_planted_error_in_a_hypergradient_is_found_under_its_name(rule, name, function):
    net, theta, batch = rule_checks.smooth_case()
    truth = hyper_truth_of(rule)
    found = {
        kind: rule_checks.hypergradient_checks(
            rm.MAML(0.05, 4, rule=wrong(rule, **members)), net, theta, batch, truth
        )
        for kind, members in (("right", {}), ("wrong", {"hypergradients": function}))
    }
    assert all(check.passed for check in found["right"])
    failed = {check.quantity: check.error for check in found["wrong"] if not check.passed}
    assert failed[f"dM/d({name})"] > 1e-4
    if function is not only_the_last_step:
        assert len(failed) == 1


def test_a_hypergradient_that_is_missing_is_found():
    net, theta, batch = rule_checks.smooth_case()

    def hypergradients(self, *arguments):
        return {"weight_decay": rm.SGD.hypergradients(self, *arguments)["weight_decay"]}

    rule = wrong(SGD, hypergradients=hypergradients)
    checks = rule_checks.hypergradient_checks(rm.MAML(0.05, 4, rule=rule), net, theta, batch)
    failed = {check.quantity for check in checks if not check.passed}
    assert failed == {"dM/d(momentum)", "dM/d(dampening)"}
    assert relative_error(np.ones(2), np.ones(3)) == np.inf
