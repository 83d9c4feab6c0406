"""What rounding allows: float32, TF32, ill-conditioned problems, cancellation."""

import numpy as np
import pytest
from implementations import MAML, K, maml, reptile
from own_net_functions import implements

import refmaml as rm
from refmaml.doctor.builtin_cases import own_case
from refmaml.doctor.case_runs import ILL_CONDITIONED
from refmaml.doctor.cases import Case
from refmaml.oracles import cases
from refmaml.oracles.method_checks import truth_by_steps

pytestmark = pytest.mark.slow


def rounded_to(bits):
    """A right gradient; in float32 rounded to so many bits, as in TF32."""

    def coarse(a):
        mantissa, exponent = np.frexp(a)
        return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(a.dtype)

    def function(problem, params, batch):
        if batch.x_query.dtype == np.float64:
            return maml(problem, params, batch)
        return {n: coarse(g) for n, g in maml(problem, params, batch).items()}

    return function


def test_ten_bits_in_float32_are_recognised_as_tf32_and_fewer_are_wrong():
    report = rm.check_meta_gradient(rounded_to(11), MAML, probes=("mlp",), repeats=0)
    assert (
        report.verdict == "inconclusive"
        and "TF32" in report.diagnosis
        and "allow_tf32" in report.fix
    )
    assert (
        rm.check_meta_gradient(rounded_to(3), MAML, probes=("mlp",), repeats=0, seconds=1).verdict
        == "wrong"
    )


def test_a_function_that_returns_float32_is_judged_as_float32_with_a_remark():
    def low(problem, params, batch):
        return {n: g.astype(np.float32) for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(low, MAML, probes=("mlp",))
    assert report.ok and any("returns float32" in remark for remark in report.remarks)


def test_the_argument_tol_replaces_the_tolerance():
    def off(problem, params, batch):
        return {n: g * (1 + 1e-4) for n, g in maml(problem, params, batch).items()}

    assert rm.check_meta_gradient(off, MAML, probes=("mlp",), tol=1e-3, repeats=0)
    assert (
        rm.check_meta_gradient(off, MAML, probes=("mlp",), tol=1e-5, repeats=0).verdict == "wrong"
    )


@pytest.mark.parametrize(
    "method", [rm.Reptile(1e-3, K, optimizer="adam"), rm.Reptile(1e-5, K, optimizer="adam")]
)
def test_a_right_reptile_with_short_steps_is_right(method):
    """theta - phi_K loses one rounding of theta."""
    for seed in (0, 1):
        report = rm.check_meta_gradient(reptile, method, seed=seed, repeats=0)
        assert report.verdict == "right", report
    report = rm.check_meta_gradient(
        lambda *a: {n: 1.001 * g for n, g in reptile(*a).items()}, method, repeats=0, seconds=1
    )
    assert report.verdict == "wrong"


def steep():
    return rm.Sequential(
        [rm.Linear(3, 20), rm.Tanh(), rm.Linear(20, 20), rm.Tanh(), rm.Linear(20, 2)],
        rm.MSE(),
        (3,),
    ), rm.MAML(1.0, 10)


@pytest.mark.parametrize("answer", [0.0, 0.01])
def test_where_rounding_allows_any_value_no_answer_is_called_right(answer):
    net, method = steep()
    report = rm.check_meta_gradient(
        lambda params, batch: {n: np.full(p.shape, answer, np.float32) for n, p in params.items()},
        method,
        net=net,
        repeats=0,
        seconds=5,
    )
    assert report.verdict != "right" and "times" not in report.diagnosis
    if report.verdict == "inconclusive":
        assert (
            "so ill-conditioned that rounding allows errors of" in report.diagnosis
            and "step size" in report.fix
        )


def test_an_answer_right_in_float64_stays_right_where_float32_is_ill_conditioned():
    net, method = steep()
    case = own_case(net, method, None, 0)
    assert case.rounded(np.float32).relative_allowance > ILL_CONDITIONED > case.relative_allowance
    report = rm.check_meta_gradient(implements(net, method), method, net=net, repeats=0)
    assert report.verdict == "right" and "ill-conditioned" in report.results[-1].remark


def test_float32_inside_a_float64_call_is_named():
    def half(problem, params, batch):
        batch = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in batch]
        found = maml(problem, {n: p.astype(np.float32) for n, p in params.items()}, batch)
        return {n: g.astype(np.float64) for n, g in found.items()}

    report = rm.check_meta_gradient(half, MAML, probes=("mlp", "conv"), repeats=0)
    assert report.verdict == "wrong" and report.diagnosis.startswith(
        "right to float32, not to float64"
    )


def test_a_known_mistake_as_small_as_float32_s_rounding_keeps_its_name():
    """Clipping makes the steps so short that the proximal term changes 4e-6."""
    rule = rm.Clip(rm.SGD(), norm=0.01)

    def anchored(problem, params, batch):
        method = rm.MAML(0.1, 4, rule=rule, anchor=1.0)
        return method.meta_gradient(problem.net, params, rm.Batch(*batch))

    report = rm.check_meta_gradient(
        anchored, rm.MAML(0.1, 4, rule=rule), probes=("two-layer", "conv"), repeats=0
    )
    assert report.verdict == "wrong" and "with anchor = 1" in report.diagnosis
    assert max(r.error for r in report.results) < 1e-5


def certain_probabilities():
    """Probabilities 1e-10 from 0 and 1: p - 1 has lost most of its digits."""
    rng, labels = np.random.default_rng(0), np.array([[0, 1, 1, 0]] * 3)
    x = np.stack([1 - 2.0 * labels, rng.standard_normal(labels.shape)], axis=-1)
    theta = np.array([12.0, 0.3, -12.0, 0.1, 0.2, -0.1])
    return (
        rm.Sequential([rm.Linear(2, 2)], rm.CrossEntropy(), (2,)),
        theta,
        rm.Batch(x, labels, x, labels),
    )


def far_from_0():
    """Batch-norm subtracts a mean of a million."""
    net, rng = (
        rm.Sequential([rm.Linear(3, 4), rm.BatchNorm2d(4), rm.Linear(4, 2)], rm.MSE(), (3,)),
        np.random.default_rng(0),
    )
    theta = cases.start(net, rng)
    theta[net.parameters.slices["0.bias"]] += 1e6
    return net, theta, cases.tasks_for(net, rng)


@pytest.mark.parametrize("draw,loses", [(certain_probabilities, True), (far_from_0, False)])
def test_digits_lost_by_cancellation_are_no_mistake(draw, loses):
    """The complex step loses other digits than refmaml's passes do.

    Batch-norm loses none far from 0, as it centres its values twice.
    """
    net, theta, batch = draw()
    case = Case("drawn", net, method := rm.MAML(0.01, 1), theta, batch, own=True)
    off = np.abs(case.truth - truth_by_steps(method, net, theta, batch))
    assert (off <= case.allowed).all()
    assert (off.max() > 1e-10 * np.abs(case.truth).max()) == loses
