"""Step sizes, lambda and numbers of steps that are written into a function."""

from types import SimpleNamespace

import complex_step_functions as planted
import numpy as np
import pytest
from implementations import IMAML, MAML, flat, imaml, maml
from test_74_doctor_update_rules import MOMENTUM, maml_with_momentum

import refmaml as rm
from refmaml.doctor import update_after_each_task
from refmaml.doctor.builtin_cases import builtin_case

pytestmark = pytest.mark.slow

PROBES = ("quadratic", "two-layer")


def checked(fn, method=MAML, **options):
    options = {"repeats": 0, "precision": "float64", "probes": PROBES} | options
    return rm.check_meta_gradient(fn, method, **options)


def with_settings(fn, **settings):
    """A function that takes some settings as constants, and not from problem.method."""

    def call(problem, params, batch):
        names = ("inner_lr", "inner_steps", "rule", "adapts", "regularization", "cg_steps")
        own = {n: getattr(problem.method, n) for n in names if hasattr(problem.method, n)}
        parts = {n: getattr(problem, n) for n in ("net", "loss", "gradient", "hvp")}
        return fn(SimpleNamespace(method=SimpleNamespace(**own | settings), **parts), params, batch)

    return call


def distorted(fn):
    """A mistake that has no name, on top of another one."""

    def off(problem, params, batch):
        return {n: g + 0.3 * np.sin(g) for n, g in fn(problem, params, batch).items()}

    return off


@pytest.mark.parametrize(
    ("fn", "method"),
    [(maml, MAML), (maml, rm.MAML([0.1, 0.07, 0.05], 3)), (maml_with_momentum, MOMENTUM)],
    ids=["one size", "a list", "momentum"],
)
def test_a_step_size_of_the_function_s_own_is_said_with_its_number(fn, method):
    report = checked(with_settings(fn, inner_lr=0.037), method, seconds=20)
    assert report.verdict == "wrong" and "0.037" in report.diagnosis, str(report)
    assert "query gradient" not in str(report) and "problem.method" in report.fix


@pytest.mark.parametrize(
    ("fn", "settings", "words"),
    [
        (maml_with_momentum, {"rule": rm.SGD(0.9)}, "0.037 (with momentum 0.9) is written"),
        (planted.maml(planted.adam()), {}, "0.037 (with Adam, eps=1e-8) is written"),
    ],
    ids=["momentum", "adam"],
)
def test_it_is_said_with_its_number_beside_a_rule_that_is_not_declared(fn, settings, words):
    report = checked(with_settings(fn, inner_lr=0.037, **settings), seconds=0.1)
    assert "does not follow problem.method.inner_lr" in report.diagnosis, str(report)
    assert words in report.diagnosis and "query gradient" not in str(report)


def test_beside_a_mistake_without_a_name_it_is_said_that_the_step_does_not_follow():
    report = checked(distorted(with_settings(maml, inner_lr=0.037)), seconds=1)
    assert "the inner step does not follow problem.method.inner_lr" in report.diagnosis, str(report)
    assert report.stages == (("own step size", ""),) and "differs from case to case" in report.fix


def test_a_lambda_of_the_function_s_own_is_said():
    fn = with_settings(imaml, regularization=7.5, inner_lr=0.9 / 7.5, inner_steps=400)
    report = checked(fn, IMAML, probes=("quadratic",), seconds=0.1)
    assert "does not follow problem.method.regularization" in report.diagnosis, str(report)
    assert "7.5 is written into the function" in report.diagnosis, str(report)


def test_steps_that_the_function_counts_itself_are_not_looked_at_one_by_one():
    def wrong_step(phi, g, s, k, a):
        return {n: phi[n] - a * (g[n] + 0.1 * g[n] ** 2) for n in phi}, s

    fixed = with_settings(planted.maml(wrong_step), inner_steps=3)
    report = checked(fixed, probes=("two-layer",), seconds=1)
    assert report.stages == (("own number of steps", ""),), str(report)
    assert "problem.method.inner_steps" in report.diagnosis
    follows = checked(planted.maml(wrong_step), probes=("two-layer",), seconds=1)
    assert follows.stages[0][0] == "inner gradient", str(follows)


def test_what_is_declared_as_not_meta_learned_stays_so_where_a_mistake_is_placed():
    def fn(problem, params, batch):
        out = distorted(maml)(problem, params, batch)
        return out if "2.weight" not in params else {**out, "0.weight": None}

    report = checked(fn, probes=("mlp",), not_meta_learned=("0.weight",), seconds=1)
    assert report.verdict == "wrong" and report.stages[0][1] != "0.weight", str(report)


def test_a_case_in_which_nothing_is_learned_is_left_out():
    def fn(problem, params, batch):
        return maml(problem, params, batch) | {"0.weight": None}

    report = checked(fn, not_meta_learned=("0.*",))
    assert report and [r.case for r in report.results] == ["two-layer"]
    assert any("the quadratic case was left out" in remark for remark in report.remarks)
    for patterns, words in ((("7.*",), "names or patterns"), (("*",), "something to learn")):
        with pytest.raises(rm.ArgumentError, match=words):
            checked(fn, not_meta_learned=patterns)


# ---- limits --------------------------------------------------------------------------


def test_a_limit_that_no_case_reaches_is_a_remark():
    report = checked(maml, rm.MAML(0.1, 3, rule=rm.Clip(rm.SGD(), norm=50.0)))
    assert report and "rm.Clip(norm=50) is reached in no inner step" in report.remarks[0]
    reached = rm.MAML(0.1, 3, rule=rm.Clip(rm.SGD(), norm=0.2))
    fn = planted.maml(planted.clipped(0.2, 1e-6))
    report = checked(fn, reached, probes=("two-layer",))
    assert report and not report.remarks, str(report)
    assert not checked(maml).remarks


def test_a_step_size_for_each_step_and_an_unknown_mistake_are_placed():
    """With a single step MAML++ has fewer step sizes, and a shorter answer."""
    method = rm.MAMLPlusPlus(0.1, 3)

    def half(problem, params, batch):
        rates = [a for name, a in params.items() if name.startswith("inner_lr.")]
        theta, b = flat(problem, params), rm.Batch(*batch)
        meta = np.concatenate([theta, np.stack(rates, 1).ravel()])
        fewer = rm.Batch(b.x_support[:, :3], b.y_support[:, :3], b.x_query, b.y_query)
        return problem.method.meta_gradient(problem.net, meta, fewer).grad

    report = rm.check_meta_gradient(half, method, probes=("mlp",), repeats=0)
    assert report.verdict == "wrong" and "support examples [0, 1, 2]" in report.diagnosis


def test_the_search_for_an_outer_step_ends_where_its_steps_overflow(monkeypatch):
    case = builtin_case("mlp", MAML)

    def overflows(case, loop, beta):
        return case.truth + (np.inf if beta else 0.0)

    monkeypatch.setattr(update_after_each_task, "sequential", overflows)
    assert update_after_each_task.explain_by_update_after_each_task([case], [2 * case.truth]) == []
