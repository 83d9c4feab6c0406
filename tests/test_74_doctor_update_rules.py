"""The doctor on methods with an update rule, a proximal term, mini-batches, and a step
size for each step: right functions are right, and mistakes in the rule get their names.
"""

import numpy as np
import pytest
from implementations import average, plus, tasks, times

import refmaml as rm
from refmaml.doctor.builtin_cases import builtin_case
from refmaml.doctor.cases import Case
from refmaml.doctor.dictionary import candidate, dictionary
from refmaml.doctor.regression_case import regression, with_single_step, with_steps

pytestmark = pytest.mark.slow

MOMENTUM = rm.MAML(0.1, 3, rule=rm.SGD(momentum=0.9))
LENGTHS = rm.MAML([0.1, 0.05, 0.02], 3)


def step_sizes(method):
    alpha = method.inner_lr
    return alpha if isinstance(alpha, tuple) else (alpha,) * method.inner_steps


def maml_with_momentum(problem, params, batch, detached=False, ignored=False):
    """The heavy-ball recursion and its adjoint, by hand."""
    method = problem.method
    mu, lengths, rows = 0 if ignored else method.rule.momentum, step_sizes(method), []
    for xs, ys, xq, yq in tasks(batch):
        phis, m = [params], times(0, params)
        for alpha in lengths:
            m = plus(mu, m, problem.gradient(phis[-1], xs, ys))
            phis.append(plus(-alpha, m, phis[-1]))
        lam, sig = problem.gradient(phis[-1], xq, yq), times(0, params)
        for phi, alpha in zip(phis[-2::-1], lengths[::-1], strict=True):
            dm = plus(-alpha, lam, sig)
            lam = plus(1, problem.hvp(phi, xs, ys, dm), lam)
            sig = times(0 if detached else mu, dm)
        rows.append(lam)
    return average(rows)


def maml_by_lengths(problem, params, batch):
    """Plain gradient descent with a step size for each step."""
    rows, lengths = [], step_sizes(problem.method)
    for xs, ys, xq, yq in tasks(batch):
        phis = [params]
        for alpha in lengths:
            phis.append(plus(-alpha, problem.gradient(phis[-1], xs, ys), phis[-1]))
        lam = problem.gradient(phis[-1], xq, yq)
        for phi, alpha in zip(phis[-2::-1], lengths[::-1], strict=True):
            lam = plus(-alpha, problem.hvp(phi, xs, ys, lam), lam)
        rows.append(lam)
    return average(rows)


def maml_with_anchor(problem, params, batch, missing=False):
    """Gradient descent on mini-batches of f + (anchor/2) |phi - theta|^2."""
    rows, method = [], problem.method
    anchor, alpha = 0 if missing else method.anchor, method.inner_lr
    for xs, ys, xq, yq in tasks(batch):
        phis, parts = [params], method.mini_batches(len(xs))
        for part in parts:
            g = problem.gradient(phis[-1], xs[part], ys[part])
            pulled = plus(anchor, plus(-1, params, phis[-1]), g)
            phis.append(plus(-alpha, pulled, phis[-1]))
        lam, pull = problem.gradient(phis[-1], xq, yq), times(0, params)
        for phi, part in zip(phis[-2::-1], parts[::-1], strict=True):
            pull = plus(alpha * anchor, lam, pull)
            Hv = problem.hvp(phi, xs[part], ys[part], lam)
            lam = plus(-alpha, plus(anchor, lam, Hv), lam)
        rows.append(plus(1, pull, lam))
    return average(rows)


ANCHORED = rm.MAML(0.1, 3, anchor=0.5, inner_batch=3, order_seed=2)


def checked(fn, method, **options):
    options = {"repeats": 0, "precision": "float64", "probes": ("quadratic", "mlp")} | options
    return rm.check_meta_gradient(fn, method, **options)


# ---- right functions -----------------------------------------------------------------


@pytest.mark.parametrize(
    "fn, method",
    [
        (maml_with_momentum, MOMENTUM),
        (maml_with_momentum, rm.MAML([0.1, 0.07, 0.05], 3, rule=rm.SGD(momentum=0.5))),
        (maml_by_lengths, LENGTHS),
        (maml_with_anchor, ANCHORED),
    ],
    ids=["momentum", "momentum and lengths", "lengths", "anchor and mini-batches"],
)
def test_a_right_function_is_called_right_on_every_case_in_both_precisions(fn, method):
    report = checked(fn, method, precision=None, probes=None)
    assert report.ok and len(report.results) == 8, str(report)
    assert all(s.misfit <= 0.5 for s in report.results), str(report)


def test_the_call_that_repeats_the_check_has_the_rule_s_name_as_python_reads_it():
    report = checked(maml_with_momentum, MOMENTUM, probes=("quadratic",))
    call = report.about["again"].removeprefix("rm.check_meta_gradient(maml_with_momentum, ")
    assert eval(call.partition(", framework=")[0], {"rm": rm}) == MOMENTUM


# ---- mistakes ------------------------------------------------------------------------


def detached(problem, params, batch):
    return maml_with_momentum(problem, params, batch, detached=True)


def ignored(problem, params, batch):
    return maml_with_momentum(problem, params, batch, ignored=True)


def without_anchor(problem, params, batch):
    return maml_with_anchor(problem, params, batch, missing=True)


def constant(problem, params, batch):
    """Step sizes of its own."""

    class Fixed:
        gradient, hvp, method = problem.gradient, problem.hvp, LENGTHS

    return maml_by_lengths(Fixed, params, batch)


@pytest.mark.parametrize(
    "fn, method, words",
    [
        (detached, MOMENTUM, "the state of SGD is detached"),
        (ignored, MOMENTUM, "plain gradient descent, without the method's SGD"),
        (without_anchor, ANCHORED, "the term with anchor is missing"),
        (constant, LENGTHS, "the inner step size is a constant of the function's own"),
    ],
)
def test_a_mistake_in_the_rule_is_named(fn, method, words):
    report = checked(fn, method)
    assert report.verdict == "wrong" and not report.stages, str(report)
    assert words in report.diagnosis and report.fix, str(report)


def test_a_mistake_without_a_name_is_placed():
    def off(problem, params, batch):
        right = maml_with_momentum(problem, params, batch)
        return {n: right[n] + 0.3 * np.sin(right[n]) for n in right}

    report = checked(off, MOMENTUM, probes=("mlp",), seconds=2)
    assert report.verdict == "wrong" and report.stages[0][0] == "query gradient", str(report)


# ---- the dictionary's right variant is the method itself ----------------------------

RULES = [
    rm.SGD(momentum=0.9, nesterov=True, weight_decay=0.1),
    rm.Adam(eps_root=1e-3),
    rm.RMSprop(momentum=0.5, centered=True, eps_root=1e-3),
    rm.Adagrad(initial_accumulator_value=0.1),
    rm.Clip(rm.SGD(momentum=0.9), norm=0.3),
    rm.Clip(rm.SGD(), norm=0.3, per_tensor=True),
]
SETTINGS = {"anchor": 0.3, "inner_batch": 4}
CLASSES = [rm.MAML, rm.FirstOrderMAML, rm.ANIL, rm.CAVIA, rm.MetaSGD, rm.MAMLPlusPlus, rm.Reptile]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_variant_without_a_mistake_is_the_method(cls, rule):
    case = builtin_case("mlp", cls(0.05, 3, rule=rule, **SETTINGS))
    g = candidate(case, {})
    assert np.abs(g - case.truth).max() <= 1e-11 * np.abs(case.truth).max()


@pytest.mark.parametrize("cls", [rm.MAML, rm.CAVIA, rm.MAMLPlusPlus, rm.Reptile, rm.FirstOrderANIL])
def test_a_list_of_step_sizes_keeps_its_ratios_on_a_case(cls):
    case = builtin_case("mlp", cls([0.4, 0.1, 0.2], 3))
    largest, *others = case.method.inner_lr
    # the case rounds its step sizes to three digits
    assert np.allclose([a / largest for a in others], [0.25, 0.5], rtol=0.01)
    g = candidate(case, {})
    assert np.abs(g - case.truth).max() <= 1e-11 * np.abs(case.truth).max()


def test_names_are_distinct_and_new_only_where_the_method_has_a_rule():
    def names(method):
        return [m.name for m in dictionary(method)]

    plain = names(rm.MAML(0.1, 3))
    for method in (MOMENTUM, ANCHORED, LENGTHS, rm.Reptile(0.1, 3, rule=rm.Adam())):
        found = names(method)
        assert len(set(found)) == len(found)
    assert names(LENGTHS) == plain
    assert set(names(MOMENTUM)) - set(plain) == {
        "the inner loop is plain gradient descent, without the method's SGD",
        "the state of SGD is detached: no derivative passes from step to step",
        "the state of SGD is carried from task to task",
        "momentum is an average, m = mu m + (1 - mu) g",
    }


@pytest.mark.parametrize(
    "method", [MOMENTUM, LENGTHS, rm.MAML(0.1, 3, inner_batch=20), rm.Reptile([0.2, 0.1], 2)]
)
def test_the_small_regression_of_a_bisection_takes_every_method(method):
    case = regression(method)
    for other in (case, with_single_step(case), with_steps(case, 2)):
        assert isinstance(other, Case) and np.isfinite(other.truth).all() and other.truth.any()


def test_imaml_is_judged_at_its_solution_whatever_rule_finds_it():
    case = builtin_case("quadratic", rm.IMAML(2.0, rule=rm.SGD(momentum=0.9)))
    plain = builtin_case("quadratic", rm.IMAML(2.0))
    assert (case.truth == plain.truth).all()


def test_a_case_with_fewer_examples_than_a_mini_batch_is_left_out_with_its_reason():
    net = rm.mlp((3, 4, 2))
    report = rm.check_meta_gradient(
        maml_with_anchor, rm.MAML(0.1, 2, inner_batch=9, anchor=0.1),
        net=net, batch=rm.Batch(*own_batch()), repeats=0, precision="float64",
    )  # fmt: skip
    assert report.ok and len(report.results) == 1, str(report)
    reasons = [r for r in report.remarks if "inner_batch: expected at most the" in r]
    assert len(reasons) == 4


def own_batch():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2, 12, 3)), rng.standard_normal((2, 2, 12, 2))
    return x[0], y[0], x[1], y[1]


@pytest.mark.parametrize("rule", [rm.SGD(weight_decay=0.2), rm.SGD(momentum=0.9, weight_decay=0.2)])
def test_a_first_order_gradient_whose_decay_is_differentiated_has_that_name(rule):
    method = rm.FirstOrderMAML(0.1, 3, rule=rule)

    def kept(problem, params, batch):
        """dphi_K/dtheta without H is a number, as all parameters decay alike."""
        phi, m = 1.0, 0.0
        for _ in range(method.inner_steps):
            m = rule.momentum * m + rule.weight_decay * phi
            phi -= method.inner_lr * m
        grad = method.meta_gradient(problem.net, params, rm.Batch(*batch)).grad
        return phi * grad

    report = rm.check_meta_gradient(kept, method, probes=("mlp", "conv"), repeats=0)
    assert report.verdict == "wrong" and "the derivative" not in report.diagnosis
    assert "weight decay is differentiated" in report.diagnosis
    assert rm.check_meta_gradient(
        lambda p, params, batch: method.meta_gradient(p.net, params, rm.Batch(*batch)).grad,
        method, probes=("mlp",), repeats=0,
    ).verdict == "right"  # fmt: skip
