"""Sign-MAML, whose exact gradient is the first-order one, and AlphaMAML's two rates."""

from dataclasses import dataclass

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import complex_step, meta_objectives, method_checks
from refmaml.oracles.tolerance import relative_error
from refmaml.training.online_rates import Rates, update_rates
from refmaml.update_rules.rule import Pullback

PRECISE = 1e-12
NET = rm.Sequential([rm.Linear(2, 5), rm.Tanh(), rm.Linear(5, 3)], rm.MSE(), (2,))
RNG = np.random.default_rng(0)
THETA = 0.7 * RNG.standard_normal(NET.num_params)
SHAPES = ((3, 5, 2), (3, 5, 3), (3, 4, 2), (3, 4, 3))
BATCH, NEXT = (rm.Batch(*(RNG.standard_normal(s) for s in SHAPES)) for _ in range(2))
SIGNS = rm.MAML(0.05, 4, rule=rm.Sign())


# ---- Sign-MAML -----------------------------------------------------------------------


def test_the_exact_gradient_of_sign_maml_is_the_first_order_one():
    check = method_checks.meta_gradient_check(SIGNS, NET, THETA, BATCH)
    assert check.passed and check.error < PRECISE, check
    first = rm.FirstOrderMAML(0.05, 4, rule=rm.Sign()).meta_gradient(NET, THETA, BATCH)
    exact = SIGNS.meta_gradient(NET, THETA, BATCH)
    assert np.array_equal(exact.grad, first.grad) and exact.loss == first.loss


def test_a_step_moves_every_parameter_by_alpha():
    phi = rm.MAML(0.05, 1, rule=rm.Sign()).adapt(NET, THETA, BATCH.x_support, BATCH.y_support)
    assert np.allclose(abs(phi - THETA), 0.05, rtol=0, atol=1e-15)
    assert rm.Sign().direction(NET, THETA, np.array([[-2.0, 0.0, 3.0]]), {}, ())[0].tolist() == [
        [-1.0, 0.0, 1.0]
    ]


@dataclass(frozen=True)
class StraightThrough(rm.Sign):
    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return Pullback(dd, dstate)


@dataclass(frozen=True)
class OverItsSize(rm.Sign):
    """The derivative of g / |g| with |g| a constant."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return Pullback(dd / abs(g), dstate)


@dataclass(frozen=True)
class Tanh(rm.Sign):
    """The derivative of tanh(100 g), a smooth sign."""

    def pullback(self, net, dd, dstate, phi, g, state, factors):
        return Pullback(100 * dd * (1 - np.tanh(100 * g) ** 2), dstate)


@pytest.mark.parametrize("rule", [StraightThrough(), OverItsSize(), Tanh()], ids=str)
def test_a_planted_derivative_of_the_sign_is_caught(rule):
    truth = method_checks.truth_by_steps(SIGNS, NET, THETA, BATCH)
    check = method_checks.meta_gradient_check(rm.MAML(0.05, 4, rule=rule), NET, THETA, BATCH, truth)
    assert not check.passed and check.error > 1e-6, check


# ---- AlphaMAML -----------------------------------------------------------------------

METHOD, START = rm.MAML(0.1, 3), Rates(THETA, 0.2, 0.03)


def objective(theta, alpha, batch):
    """M by the oracle's inner loop, for rows theta and columns alpha."""
    rates = [alpha * np.ones((1, NET.num_params))] * 3
    total = 0
    for t in range(len(batch)):
        task = batch[t : t + 1]
        x, y = meta_objectives.support_set(task, len(theta))
        phis = meta_objectives.inner_loop(NET, theta, rates, x, y)
        total = total + meta_objectives.query_loss(NET, task, phis[-1])
    return total / len(batch)


def two_updates(**rates):
    """The Updates on BATCH and on NEXT."""
    given = {"alpha_lr": 1e-3, "beta_lr": 1e-3} | rates
    first = update_rates(NET, METHOD, START, BATCH, **given)
    second = update_rates(NET, METHOD, first.rates, NEXT, **given)
    return first, second


def truth_of(first):
    """(dM/dalpha, dM/dbeta) of the second update's loss by the complex step."""
    G, alpha = first.rates.grad, first.rates.alpha

    def of_beta(b):
        return objective(THETA - b * G, alpha, NEXT)

    def of_alpha(a):
        return objective(np.repeat(first.rates.theta[None], len(a), axis=0), a, NEXT)

    at = np.array([first.rates.beta]), np.array([alpha])
    return complex_step.gradient(of_alpha, at[1])[0], complex_step.gradient(of_beta, at[0])[0]


def test_both_hypergradients_are_derivatives_of_the_next_loss():
    first, second = two_updates()
    assert first.dbeta == 0 and first.rates.beta == START.beta
    dalpha, dbeta = truth_of(first)
    assert relative_error(np.array([second.dalpha]), np.array([dalpha])) < PRECISE
    assert relative_error(np.array([second.dbeta]), np.array([dbeta])) < PRECISE


def test_planted_hypergradients_are_caught():
    first, second = two_updates()
    dalpha, dbeta = truth_of(first)
    G, H = first.rates.grad, second.rates.grad
    query_only = rm.FirstOrderMAML(first.rates.alpha, 3).meta_gradient(NET, first.rates.theta, NEXT)
    for wrong in (H @ G, -G @ G, -H @ H, -query_only.grad @ G):
        assert abs(wrong / dbeta - 1) > 1e-3
    trace = METHOD.meta_gradient(NET, first.rates.theta, NEXT, trace=True).trace
    last = -(trace["inner_grad"][-1] * trace["lam"][-1]).sum(axis=1).mean()
    for wrong in (-dalpha, last, -second.dbeta):
        assert abs(wrong / dalpha - 1) > 1e-3


def test_an_update_moves_all_three():
    first, second = two_updates(alpha_lr=0.01, beta_lr=0.02)
    assert second.rates.beta == pytest.approx(START.beta - 0.02 * second.dbeta, rel=1e-14)
    assert first.rates.alpha == pytest.approx(0.2 - 0.01 * first.dalpha, rel=1e-14)
    step = first.rates.theta - second.rates.beta * second.rates.grad
    assert np.array_equal(second.rates.theta, step)
    still = two_updates(alpha_lr=0, beta_lr=0)[1].rates
    assert (still.alpha, still.beta) == (0.2, 0.03)


def test_a_rate_never_becomes_negative():
    rates = START
    for _ in range(5):
        rates = update_rates(NET, METHOD, rates, BATCH, alpha_lr=1e3, beta_lr=1e3).rates
        assert rates.alpha > 0 and rates.beta > 0
        rates = Rates(THETA, rates.alpha, min(rates.beta, 0.03), -rates.grad)


def test_learned_rates_train_faster_than_those_that_stay():
    losses = []
    for rate in (0.0, 2e-3):
        rates = Rates(THETA, 0.01, 0.01)
        for _ in range(40):
            update = update_rates(NET, METHOD, rates, BATCH, alpha_lr=rate, beta_lr=rate)
            rates = update.rates
        losses.append(update.loss)
    assert losses[1] < 0.9 * losses[0] and rates.beta > 0.01


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: Rates(THETA, 0.0, 0.1), "alpha: expected a finite number > 0"),
        (lambda: Rates(THETA, 0.1, np.nan), "beta: expected a finite number > 0"),
        (lambda: update_rates(NET, METHOD, START, BATCH, alpha_lr=-1, beta_lr=0),
         "alpha_lr: expected a finite number >= 0"),
    ],
)  # fmt: skip
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
