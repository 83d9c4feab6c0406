"""The exact truths of policies' meta-gradients: digits of the table, planted errors."""

import numpy as np
import pytest

from refmaml.oracles import complex_step, rl_bandit, rl_checks, rl_linear_quadratic, rl_navigation
from refmaml.oracles.rl_bandit import Bandit
from refmaml.oracles.rl_linear_quadratic import Line
from refmaml.rl import LVC, DiCE, NaiveSurrogate

BANDIT = Bandit()
EXACT = BANDIT.value(BANDIT.theta)


def test_every_row_of_the_ladder_passes():
    checks = list(rl_checks.policy_checks())
    assert len(checks) > 90 and all(check.passed for check in checks)


@pytest.mark.parametrize("baseline", [0.0, EXACT])
@pytest.mark.parametrize("N", [1, 2, 3])
def test_two_quadratures_of_the_bandit_agree_to_ten_digits(N, baseline):
    one, other = (f(BANDIT, N, baseline) for f in (rl_bandit.moments, rl_bandit.direct))
    for name, value in one.items():
        assert abs(value - other[name]) <= 1e-10 * abs(value)


# {row: means for N = 1, 2, 3 and infinity}; docs/rl.md prints the same digits
TABLE = {
    ("DiCE", 0.0): (4.048, 2.367, 1.807, 0.686),
    ("naive", 0.0): (1.471, 1.875, 2.010, 2.279),
    ("naive", EXACT): (0.728, 0.854, 0.896, 0.980),
}


@pytest.mark.parametrize("name, baseline", TABLE)
def test_the_means_of_the_bandit_s_estimators_have_these_digits(name, baseline):
    found = [rl_bandit.moments(BANDIT, N, baseline)[name] for N in (1, 2, 3, np.inf)]
    assert np.round(found, 3).tolist() == pytest.approx(TABLE[name, baseline], abs=1e-12)


def test_the_closed_forms_are_derivatives_of_their_objectives():
    assert rl_bandit.gradient_of_infinite(BANDIT) == pytest.approx(0.686, rel=1e-14)
    found = [rl_bandit.gradient_of_samples(BANDIT, N) for N in (1, 2, 3)]
    assert found == pytest.approx([1.62092, 1.15346, 0.99764], rel=1e-13)
    for N in (1, 2, 3, 50):
        slope = complex_step.derivative(
            rl_bandit.objective_of_samples(
                BANDIT._replace(theta=BANDIT.theta + 1j * complex_step.H), N
            )
        )
        assert slope == pytest.approx(rl_bandit.gradient_of_samples(BANDIT, N), rel=1e-13)


@pytest.mark.parametrize("N", [1, 2, 5, 40])
def test_naive_with_the_score_term_is_exact_for_every_number_of_samples(N):
    value = rl_bandit.moments(BANDIT, N)["naive + score"]
    assert value == pytest.approx(rl_bandit.gradient_of_samples(BANDIT, N), rel=1e-13)


def test_the_bias_of_dice_on_one_batch_is_c_over_n():
    """Exactly: N times the bias is the same number for every N."""
    truth = rl_bandit.gradient_of_infinite(BANDIT)
    c = [N * (rl_bandit.moments(BANDIT, N)["DiCE"] - truth) for N in (1, 2, 3, 10, 1000)]
    assert c == pytest.approx([c[0]] * 5, rel=1e-11) and c[0] == pytest.approx(3.36168, rel=1e-11)


# ---- linear-quadratic navigation -----------------------------------------------------


def relative(value, truth):
    return np.linalg.norm(value - truth) / np.linalg.norm(truth)


OFF = {
    1: {"naive": 0.42, "naive + baseline": 0.23, "first order": 0.12},
    2: {"naive": 1.93, "naive + baseline": 1.06, "LVC": 0.23, "first order": 0.64},
    3: {"naive": 1.26, "naive + baseline": 0.30, "LVC": 0.30, "first order": 0.77},
}


@pytest.mark.parametrize("T", OFF)
def test_meta_gradients_on_the_line_are_exact_or_off_as_listed(T):
    truth, found = rl_linear_quadratic.meta_gradients(Line(T), rl_checks.PLACE, alpha=0.1)
    errors = {name: relative(value, truth) for name, value in found.items()}
    assert {n: round(errors[n], 2) for n in OFF[T]} == pytest.approx(OFF[T])
    assert errors["DiCE"] <= 1e-14
    assert (errors["LVC"] <= 1e-14) == (T == 1)


@pytest.mark.parametrize("T", [1, 2, 3, 7])
def test_the_moments_derivatives_are_those_of_the_complex_step(T):
    exact = rl_linear_quadratic.objective(Line(T), rl_checks.PLACE)
    for i, e in enumerate(np.eye(3)):
        moved = rl_linear_quadratic.objective(Line(T), complex_step.shifted(rl_checks.PLACE, e))
        for value, truth in ((moved.value, exact.first[i]), (moved.first, exact.second[i])):
            scale = np.abs(exact.second).max()
            assert np.abs(complex_step.derivative(value) - truth).max() <= 1e-14 * scale


def test_a_product_rule_that_is_off_by_a_thousandth_is_found(monkeypatch):
    """Planted: second derivatives of products are a thousandth too small."""
    original = rl_linear_quadratic.Jet.times

    def times(self, other):
        found = original(self, other)
        return found._replace(second=found.second * 0.999)

    monkeypatch.setattr(rl_linear_quadratic.Jet, "times", times)
    assert not all(check.passed for check in rl_checks.line_checks())


class WrongDiCE(DiCE):
    """Weights that are divided by the number of the step, as if they were a mean."""

    def r_backward(self, k, saved, rlog_probs):
        count = np.arange(1, saved.shape[2] + 1)
        return super().r_backward(k, saved / count, rlog_probs)


def test_an_estimator_that_is_no_longer_dice_is_found(monkeypatch):
    wrong = (("naive", NaiveSurrogate()), ("LVC", LVC()), ("DiCE", WrongDiCE()))
    monkeypatch.setattr(rl_checks, "ESTIMATORS", wrong)
    failed = [check.subject for check in rl_checks.line_checks() if not check.passed]
    assert set(failed) == {"line, 2 steps", "line, 3 steps"}


# ---- smooth navigation ---------------------------------------------------------------


def test_a_derivative_that_is_a_thousandth_too_long_is_found(monkeypatch):
    """Planted: a gradient that is a thousandth too long."""
    original = rl_navigation.gradient

    def without(field, p, noise, weight):
        return original(field, p, noise, weight * 1.001)

    monkeypatch.setattr(rl_navigation, "gradient", without)
    failed = [check.quantity for check in rl_checks.field_checks() if not check.passed]
    assert "DiCE, H v" in failed and "pathwise gradient" in failed
