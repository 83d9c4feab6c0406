"""rm.check_gradient: right, wrong, located, named; kinks, noise, step sizes."""

import numpy as np
import pytest
from tanh_net import PARAMS, X, Y, check, tanh_net

import refmaml as rm
from refmaml.checks import directions


def test_a_right_gradient_is_right_to_many_digits():
    report = rm.check_gradient(tanh_net, PARAMS, (X, Y))
    assert report.ok and bool(report) and report.verdict == "right"
    assert max(row.error for row in report.rows) < 1e-9
    assert any("shares" in remark for remark in report.remarks)


def test_a_sum_in_place_of_a_mean_is_named_with_its_number_and_its_axis():
    report = check(lambda g: {n: 7 * a for n, a in g.items()})
    assert report.verdict == "wrong"
    assert "7 times the derivative" in report.diagnosis and "a sum over 7" in report.diagnosis
    assert "axis 0 of batch[0]" in report.diagnosis and "divide the gradient by 7" in report.fix


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (-1, "the sign is wrong"),
        (1 / 3, "a mean over 3"),
        (0.0, "it is 0"),
        (1.37, "1.37 times the derivative of the loss: a constant factor"),
        (-11, "a sum over 11 where the loss has a mean; and the sign is wrong"),
        (2, "2 is the length of batch"),
    ],
)
def test_a_constant_factor_is_fitted_and_named(factor, words):
    report = check(lambda g: {n: factor * a for n, a in g.items()})
    assert report.verdict == "wrong" and words in report.diagnosis


def test_a_factor_two_without_an_axis_of_that_length_is_a_factor_one_half():
    report = rm.check_gradient(lambda w: (2 * w, (w**2).sum() / 2), np.ones(3))
    assert "counted twice, or without a factor 1/2" in report.diagnosis


def test_a_tensor_without_gradient_is_named_and_None_counts_as_0():
    def without_bias(g):
        g["in.bias"] = None

    report = check(without_bias)
    assert report.verdict == "wrong" and "in in.bias" in report.diagnosis
    assert "no gradient arrives" in report.diagnosis and ".detach()" in report.fix
    assert report.row("in.weight").verdict == "right" == report.row("out.weight").verdict


def test_a_wrong_entry_is_found_with_its_value():
    def one_entry(g):
        g["in.weight"][1, 3] *= 1.5

    report = check(one_entry)
    right = tanh_net(PARAMS, (X, Y))[0]["in.weight"][1, 3]
    assert "in.weight: entry [1, 3]" in report.findings[0]
    assert f"expected {right:.6g}, 1.5 times" in report.findings[0]


def test_a_wrong_row_is_found_from_its_first_to_its_last_entry():
    def one_row(g):
        g["in.weight"][1] += 0.1

    assert check(one_row).findings == ("in.weight: entries [1, 0] to [1, 7]",)


def test_two_tensors_with_factors_of_their_own_are_both_named():
    def two(g):
        g["in.bias"] *= 3
        g["out.weight"] *= -1

    findings = check(two).findings
    assert any(f.startswith("in.bias: 3 times") for f in findings)
    assert any(f.startswith("out.weight: minus") for f in findings)


def test_a_missing_term_is_wrong_all_over_the_array():
    def linear(g):
        h = np.tanh(X @ PARAMS["in.weight"])
        e = h @ PARAMS["out.weight"] - Y
        g["in.weight"] = X.T @ (2 * e / e.size @ PARAMS["out.weight"].T)

    assert check(linear).findings == ("in.weight: all over the array",)


def test_a_tiny_gradient_beside_large_ones_is_not_overlooked():
    def fn(p):
        loss = 1e3 * (p["w"] ** 2).sum() + 1e-2 * p["rate"] ** 2 / 2
        return {"w": 2e3 * p["w"], "rate": 1.5e-2 * p["rate"]}, loss

    report = rm.check_gradient(fn, {"w": np.ones(5), "rate": np.array(1.0)})
    assert report.verdict == "wrong" and "in rate" in report.diagnosis


# ---- kinks, noise, constants ---------------------------------------------------------


def test_at_a_kink_the_verdict_is_inconclusive_and_beside_it_the_gradient_is_judged():
    at = np.array([0.0, 0.0, 1.0])
    report = rm.check_gradient(lambda w: (np.sign(w), np.abs(w).sum()), at)
    assert report.verdict == "inconclusive" and "a kink" in report.diagnosis
    assert "moved by 1e-3, off the kink, the gradient is right" in report.diagnosis
    wrong = rm.check_gradient(lambda w: (2 * np.sign(w), np.abs(w).sum()), at)
    assert wrong.verdict == "wrong" and "off the kink" in wrong.findings[0]


def test_a_kink_near_the_parameters_does_not_matter():
    near = np.array([1.0, 1e-6, -1e-4])
    assert rm.check_gradient(lambda w: (np.sign(w), np.abs(w).sum()), near).ok
    assert not rm.check_gradient(lambda w: (1.1 * np.sign(w), np.abs(w).sum()), near).ok


@pytest.mark.parametrize("size", [1e-3, 1e-5])
def test_a_loss_that_is_noisy_is_inconclusive(size):
    rng = np.random.default_rng(0)

    def fn(w):
        return 2 * w, (w**2).sum() * (1 + size * rng.standard_normal())

    report = rm.check_gradient(fn, np.ones(3))
    assert report.verdict == "inconclusive" and "from call to call" in report.diagnosis
    assert "seed" in report.fix


def test_a_state_that_is_carried_is_told_from_noise():
    calls = []

    def fn(w):
        calls.append(1)
        return 2 * w, (w**2).sum() + 0.1 * len(calls)

    report = rm.check_gradient(fn, np.ones(3))
    assert report.verdict == "inconclusive" and "carried from call to call" in report.diagnosis


def test_a_loss_with_parameters_of_its_own_is_wrong_by_name():
    own = np.ones(3)
    report = rm.check_gradient(lambda w: (2 * own, (own**2).sum()), np.ones(3))
    assert report.verdict == "wrong" and "does not depend on params" in report.diagnosis
    assert "functional_call" in report.fix
    nothing = rm.check_gradient(lambda w: (0 * own, (own**2).sum()), np.ones(3))
    assert nothing.verdict == "inconclusive"


def test_a_loss_in_float32_is_judged_by_its_own_digits():
    def fn(w):
        return 2 * w, float((w.astype(np.float32) ** 2).sum())

    right = rm.check_gradient(fn, np.ones(3) / 3)
    assert right.verdict == "right" and right.rows[0].allowed > 1e-6
    assert not rm.check_gradient(lambda w: (2.1 * w, fn(w)[1]), np.ones(3) / 3).ok


def test_a_loss_that_is_infinite_beside_the_parameters_is_differentiated_closer_by():
    def fn(w):
        return 1 / w, np.log(w).sum() if (w > 0).all() else np.inf

    with np.errstate(all="ignore"):
        assert rm.check_gradient(lambda w: (1 / w, np.log(w).sum()), np.array([1e-3, 1.0])).ok


# ---- the step size -------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_step_is_found_for_functions_of_any_scale(scale):
    found = directions.derivative(lambda s: np.exp(scale * s), 1.0)
    assert abs(found.value - scale) <= found.uncertainty and found.jump == 0
    assert found.uncertainty <= 1e-8 * scale


def test_the_uncertainty_covers_the_error_over_many_functions():
    rng = np.random.default_rng(1)
    for _ in range(200):
        a, b = 10.0 ** rng.uniform(-3, 3, 2)
        found = directions.derivative(lambda s, a=a, b=b: b * np.sin(a * s + 1), b * np.sin(1))
        assert abs(found.value - a * b * np.cos(1)) <= found.uncertainty


def test_second_derivatives_by_differences():
    found = directions.second_derivative(lambda s: np.exp(3 * s), 1.0)
    assert abs(found.value - 9) <= found.uncertainty < 1e-5


def test_a_kink_shows_as_a_jump_of_the_slope():
    assert directions.derivative(abs, 0.0).jump == pytest.approx(2.0)
    assert directions.derivative(lambda s: s**3 + s, 0.0).jump == 0
