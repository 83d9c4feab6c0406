"""Errors planted in every update rule, one wrong line each: the ladder finds each."""

from functools import cache

import numpy as np
import pytest
from planted_rules import (
    ADAGRAD,
    ADAM,
    ADAMW,
    BY_NORM,
    BY_VALUE,
    NESTEROV,
    PER_TENSOR,
    RMSPROP,
    SGD,
    wrong,
)

import refmaml as rm
from refmaml.oracles import method_checks, rule_checks

FLAGS = {"plain": False}


def pullback_with(change):
    """A pullback whose result is changed: change(back, dd, rule) -> Pullback."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        base = type(self).__mro__[1]
        back = base.pullback(self, net, dd, dstate, phi, g, state, factors)
        return change(back, dd, self)

    return {"pullback": pullback}


def detached(name):
    """The adjoint of a part of the state is dropped: a buffer that was detached."""
    return pullback_with(lambda back, dd, rule: back._replace(state={**back.state, name: 0 * dd}))


def no_decay_adjoint():
    """Weight decay's direct share of the adjoint of phi is dropped."""
    return pullback_with(lambda back, dd, rule: back._replace(phi=0 * dd))


def gradient_times(factor):
    """The adjoint of the gradient is multiplied."""
    return pullback_with(lambda back, dd, rule: back._replace(grad=factor * back.grad))


def dampened_first(self, t):
    return (1 - self.dampening,)


def decay_with_the_wrong_sign(self, phi, g):
    return g - self.weight_decay * phi


def buffer_without_nesterov(self, dd, dstate):
    return dstate.get("m", 0) + dd


def no_correction(self, t):
    return 1.0, 1.0


def corrected_from_step_0(self, t):
    return tuple(1 - b ** (t + 1) for b in self.betas)


def moments_with(root):
    """Adam's moments whose root and denominator are root(v, c2, rule) -> (r, D)."""

    def moments(self, net, phi, g, state, factors):
        a = type(self).__mro__[1].moments(self, net, phi, g, state, factors)
        r, D = root(a.v, factors[1], self)
        return a._replace(r=r, D=D)

    return {"moments": moments}


def eps_inside(v, c2, rule):
    r = np.sqrt(v / c2 + rule.eps_root + rule.eps)
    return r, r


def eps_before_the_correction(v, c2, rule):
    r = np.sqrt(v / c2 + rule.eps_root)
    return r, r + rule.eps / np.sqrt(c2)


def eps_root_before_the_correction(v, c2, rule):
    r = np.sqrt((v + rule.eps_root) / c2)
    return r, r + rule.eps


def second_moment_detached(self, net, a, dd, dstate, factors):
    base = type(self).__mro__[1]
    back = base.moment_adjoints(self, net, a, dd, dstate, factors)
    return back._replace(om=0 * back.om)


def corrections_left_out_of_the_adjoint(self, net, a, dd, dstate, factors):
    base = type(self).__mro__[1]
    return base.moment_adjoints(self, net, a, dd, dstate, (1.0, 1.0))


def averages_with_eps_inside(self, net, phi, g, state):
    s = rm.RMSprop.averages(self, net, phi, g, state)
    r = np.sqrt(s.v - s.a * s.a + self.eps_root + self.eps)
    q = s.h / r
    return s._replace(r=r, D=r, q=q, b=self.momentum * state["b"] + q)


def averages_with_alpha_swapped(self, net, phi, g, state):
    s = rm.RMSprop.averages(self, net, phi, g, state)
    v = (1 - self.alpha) * state["v"] + self.alpha * s.h * s.h
    r = np.sqrt(v - s.a * s.a + self.eps_root)
    q = s.h / (r + self.eps)
    return s._replace(v=v, r=r, D=r + self.eps, q=q, b=self.momentum * state["b"] + q)


def root_detached(self, net, s, dd, dstate):
    back = rm.RMSprop.average_adjoints(self, net, s, dd, dstate)
    return back._replace(v=0 * back.v, a=0 * back.a)


def mean_detached(self, net, s, dd, dstate):
    back = rm.RMSprop.average_adjoints(self, net, s, dd, dstate)
    return back._replace(a=0 * back.a)


def decay_of_the_step_from_1(self, t):
    return (1 / (1 + t * self.lr_decay),)


def sums_with_eps_inside(self, net, phi, g, state):
    h, v, _, _ = rm.Adagrad.sums(self, net, phi, g, state)
    r = np.sqrt(v + self.eps_root + self.eps)
    return h, v, r, r


def root_without_its_half(self, net, dd, dstate, phi, g, state, factors):
    gam, dv, dD, du = rm.Adagrad.adjoints(self, net, dd, dstate, phi, g, state, factors)
    return gam + 2 * (rm.Adagrad.sums(self, net, phi, g, state)[0]) * du, dv + du, dD, 2 * du


def factor_as_a_constant(self, net, gam, g):
    return self.by_norm(net, g).factor * gam


def factor_forgotten(self, net, gam, g):
    return gam


def norm_of_the_wrong_extent(self, net, a):
    other = PER_TENSOR if not self.per_tensor else BY_NORM
    return type(other).row_sums(other, net, a)


def clipped_entries_passed_on(self, net, gam, g):
    return gam


def everything_dropped(self, net, gam, g):
    return 0 * gam


def limits_without_sign(self, net, g):
    return np.full_like(g, self.value)


PLANTED = [
    (rm.UpdateRule(), "sign", FLAGS | gradient_times(-1)),
    (rm.UpdateRule(), "no Hessian term", FLAGS | gradient_times(0)),
    (rm.UpdateRule(), "0.1 % too much", FLAGS | gradient_times(1.001)),
    (SGD, "buffer detached", detached("m")),
    (SGD, "weight decay as a constant", no_decay_adjoint()),
    (SGD, "dampening in the first step too", {"factors": dampened_first}),
    (SGD, "weight decay with the wrong sign", {"decayed": decay_with_the_wrong_sign}),
    (NESTEROV, "Nesterov's buffer as the usual one", {"buffer_adjoint": buffer_without_nesterov}),
    (NESTEROV, "buffer detached", detached("m")),
    (
        NESTEROV,
        "the gradient's own share dropped",
        pullback_with(lambda back, dd, rule: back._replace(grad=back.grad - dd)),
    ),
    (ADAM, "first moment detached", detached("m")),
    (ADAM, "second moment detached between steps", detached("v")),
    (ADAM, "second moment detached in its step", {"moment_adjoints": second_moment_detached}),
    (ADAM, "no bias correction", {"factors": no_correction}),
    (ADAM, "bias correction counted from step 0", {"factors": corrected_from_step_0}),
    (
        ADAM,
        "no correction in the adjoint",
        {"moment_adjoints": corrections_left_out_of_the_adjoint},
    ),
    (ADAM, "eps inside the root", moments_with(eps_inside)),
    (ADAM, "eps before the bias correction", moments_with(eps_before_the_correction)),
    (ADAM, "eps_root before the bias correction", moments_with(eps_root_before_the_correction)),
    (ADAM, "decay outside the moments", {"decoupled": True}),
    (ADAM, "weight decay as a constant", no_decay_adjoint()),
    (ADAMW, "decay inside the moments", {"decoupled": False}),
    (ADAMW, "weight decay as a constant", no_decay_adjoint()),
    (ADAMW, "first moment detached", detached("m")),
    (ADAMW, "eps inside the root", moments_with(eps_inside)),
    (RMSPROP, "momentum buffer detached", detached("b")),
    (RMSPROP, "average of squares detached between steps", detached("v")),
    (RMSPROP, "mean detached between steps", detached("a")),
    (RMSPROP, "root as a constant", {"average_adjoints": root_detached}),
    (RMSPROP, "mean under the root as a constant", {"average_adjoints": mean_detached}),
    (RMSPROP, "eps inside the root", {"averages": averages_with_eps_inside}),
    (RMSPROP, "alpha and 1 - alpha exchanged", {"averages": averages_with_alpha_swapped}),
    (RMSPROP, "weight decay as a constant", no_decay_adjoint()),
    (ADAGRAD, "sum of squares detached", detached("v")),
    (ADAGRAD, "weight decay as a constant", no_decay_adjoint()),
    (ADAGRAD, "decay of the step counted from 1", {"factors": decay_of_the_step_from_1}),
    (ADAGRAD, "eps inside the root", {"sums": sums_with_eps_inside}),
    (ADAGRAD, "the root's derivative without 1/2", {"adjoints": root_without_its_half}),
    (BY_NORM, "factor as a constant", {"gradient_adjoint": factor_as_a_constant}),
    (BY_NORM, "factor forgotten in the adjoint", {"gradient_adjoint": factor_forgotten}),
    (BY_NORM, "a norm for each array", {"row_sums": norm_of_the_wrong_extent}),
    (BY_NORM, "the held rule's buffer detached", detached("m")),
    (PER_TENSOR, "factor as a constant", {"gradient_adjoint": factor_as_a_constant}),
    (PER_TENSOR, "one norm over all arrays", {"row_sums": norm_of_the_wrong_extent}),
    (PER_TENSOR, "factor forgotten in the adjoint", {"gradient_adjoint": factor_forgotten}),
    (BY_VALUE, "clipped entries passed on", {"gradient_adjoint": clipped_entries_passed_on}),
    (BY_VALUE, "every entry dropped", {"gradient_adjoint": everything_dropped}),
    (BY_VALUE, "a limit without its sign", {"limits": limits_without_sign}),
    (BY_VALUE, "the held rule's decay as a constant", no_decay_adjoint()),
]


@cache
def truth_of(rule):
    """dM/dtheta with the right rule, by the oracle's formulas."""
    net, theta, batch = rule_checks.smooth_case()
    return method_checks.truth_by_steps(rm.MAML(0.05, 4, rule=rule), net, theta, batch)


def check_of(rule, truth):
    net, theta, batch = rule_checks.smooth_case()
    method = rm.MAML(0.05, 4, rule=rule)
    return method_checks.meta_gradient_check(method, net, theta, batch, truth)


@pytest.mark.parametrize(
    "rule,members", [pytest.param(r, m, id=f"{type(r).__name__}, {name}") for r, name, m in PLANTED]
)
def test_a_planted_error_is_found(rule, members):
    check = check_of(wrong(rule, **members), truth_of(rule))
    assert not check.passed and check.error > 1e6 * check.tolerance, check


@pytest.mark.parametrize("rule", list(dict.fromkeys(rule for rule, _, _ in PLANTED)), ids=str)
def test_the_right_rule_passes_the_same_check(rule):
    assert check_of(wrong(rule), truth_of(rule)).passed
    assert len([r for r, _, _ in PLANTED if r == rule]) >= 3
