"""rm.check_rl_meta_gradient: which estimator a policy's meta-gradient is."""

from dataclasses import replace

import numpy as np
import pytest
from rl_by_hand import ByHand
from rl_verdicts import CASES, SLOW, judged

import refmaml as rm
from refmaml.checks.rl import forms, probe, recipes
from refmaml.cli import main

BY_HAND = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in CASES
    if CASES[name][0]
]


@pytest.mark.parametrize("name", BY_HAND)
def test_verdicts_in_numpy(name):
    judged(name, CASES[name][0], "numpy")


# ---- the check itself ----------------------------------------------------------------


def test_no_recipe_is_the_same_function_as_another_estimator():
    """The right estimators differ by more than the tolerance on the check's batches."""
    kinds = [recipes.Recipe(form) for form in forms.RIGHT_FORMS]
    kinds.append(recipes.Recipe(first_order=True))
    for over in ("trajectories", "steps"):
        at = probe.probe_of(0, 1, over)
        found = [recipes.computed(at, recipe).base.mean(axis=0) for recipe in kinds]
        for i, a in enumerate(found):
            for b in found[:i]:
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                assert np.sqrt(1 - cosine**2) > 1e-2


@pytest.mark.parametrize("steps", [1, 2])
def test_the_recipes_are_the_package_s_estimators(steps):
    """Two implementations: the recipes' matrices, and refmaml.rl."""
    at = probe.probe_of(3, steps, "trajectories")
    estimators = {"naive": rm.NaiveSurrogate(), "lvc": rm.LVC(), "dice": rm.DiCE()}
    for form in forms.RIGHT_FORMS:
        method = rm.PolicyMAML(at.rate, estimators[form.key], score_term=True)
        for independent, second in ((False, None), (True, at.second)):
            recipe = recipes.Recipe(form, independent=independent)
            answer = recipes.computed(at, recipe)
            got = answer.base + at.mean_return()[:, None] * answer.scores
            truth = method.meta_gradient(at.policy, at.theta, at.inner, at.outer, second)
            assert np.abs(got - truth.task_grads).max() <= 1e-12 * np.abs(got).max()


@pytest.mark.slow
def test_an_unknown_function_is_wrong_and_gets_no_name():
    report = rm.check_rl_meta_gradient(ByHand("dice", rate=0.37))
    assert report.verdict == "wrong" and report.diagnosis.startswith("it is none of the known")
    assert report.row("frozen batch 0, beside dice").verdict == "wrong"


@pytest.mark.slow
def test_a_small_term_is_not_overlooked():
    def slightly(problem, params, batch):
        g = ByHand("dice")(problem, params, batch)
        return {**g, "log_sigma": g["log_sigma"] * (1 + 1e-4)}

    assert rm.check_rl_meta_gradient(slightly).verdict == "wrong"


def test_float32_is_judged_too():
    report = rm.check_rl_meta_gradient(ByHand("dice"), precision="float32")
    assert report.ok and report.row("frozen batch 0, beside dice").error < 1e-4


def test_noise_is_inconclusive():
    rng = np.random.default_rng(0)

    def noisy(problem, params, batch):
        g = ByHand("dice")(problem, params, batch)
        return {n: a + 1e-3 * rng.standard_normal(a.shape) for n, a in g.items()}

    assert rm.check_rl_meta_gradient(noisy).verdict == "inconclusive"


@pytest.mark.slow
@pytest.mark.parametrize(("over", "factor"), [("trajectories", 1 / 7), ("steps", 7)])
def test_another_convention_of_the_sums_is_one_mistake(over, factor):
    other = ByHand("dice", weights=lambda b, problem: factor * b.advantages)
    report = rm.check_rl_meta_gradient(other, over=over)
    assert "all sums over steps are divided by the number of" in report.diagnosis
    right = {"trajectories": "steps", "steps": "trajectories"}[over]
    assert report.fix == f'pass over="{right}", if it is meant' and not report.findings
    told = ByHand("dice", weights=lambda b, problem: factor * b.advantages, total=1.0)
    assert rm.check_rl_meta_gradient(as_if(told, over), over=right).ok


def as_if(function, over):
    """A function that believes in `over`, whatever the problem says."""
    return lambda problem, params, batch: function(
        replace(problem, over=over, inner_lr=problem.inner_lr), params, batch
    )


def test_two_mistakes_are_both_named():
    report = rm.check_rl_meta_gradient(ByHand("naive", averaged=True))
    assert "averaged" in report.diagnosis and "(and 1 more)" in report.diagnosis
    assert any("the naive surrogate" in finding for finding in report.findings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimator": "ppo"}, "estimator: expected one of any, naive, lvc"),
        ({"inner_steps": 0}, "inner_steps: expected an integer >= 1"),
        ({"over": "tasks"}, "over: expected one of trajectories, steps"),
        ({"of": "J"}, "of: expected one of return, loss"),
        ({"framework": "cupy"}, "framework: expected one of numpy, torch, jax"),
        ({"tol": 2}, "tol: expected a number between 0 and 1"),
    ],
)
def test_arguments_are_checked(options, words):
    with pytest.raises(rm.ArgumentError, match=words):
        rm.check_rl_meta_gradient(ByHand("dice"), **options)


def test_what_a_function_does_wrong_is_said_in_one_line():
    def writes(problem, params, batch):
        batch.inner[0].rewards[0] = 0
        return ByHand("dice")(problem, params, batch)

    with pytest.raises(rm.ArgumentError, match="batch 0: rewards: expected inputs that are left"):
        rm.check_rl_meta_gradient(writes)
    with pytest.raises(rm.ArgumentError, match="nothing for 'log_sigma'"):
        rm.check_rl_meta_gradient(
            lambda problem, params, batch: {n: a for n, a in params.items() if n != "log_sigma"}
        )
    with pytest.raises(rm.ArgumentError, match="fn: expected a meta-gradient, got KeyError"):
        rm.check_rl_meta_gradient(lambda problem, params, batch: params["2.wheight"])
    with pytest.raises(rm.ArgumentError, match="fn: expected a function"):
        rm.check_rl_meta_gradient(3)


# ---- planted errors in the check -----------------------------------------------------


def test_a_recipe_without_its_second_part_is_caught(monkeypatch):
    second = forms.Derivatives.second
    monkeypatch.setattr(forms.Derivatives, "second", lambda self, l, rl: 0 * second(self, l, rl))
    with pytest.raises(AssertionError):
        test_the_recipes_are_the_package_s_estimators(1)


# ---- the command line ----------------------------------------------------------------

FILE = """
from rl_by_hand import ByHand

dice, averaged = ByHand("dice"), ByHand("dice", averaged=True)
"""


@pytest.mark.parametrize(
    ("name", "options", "status", "words"),
    [
        ("dice", [], 0, "RIGHT: DiCE"),
        ("dice", ["--inner-steps", "2", "--over", "steps", "--estimator", "dice"], 0, "RIGHT"),
        ("dice", ["--estimator", "lvc"], 1, "WRONG: DiCE in place of LVC"),
        ("averaged", [], 1, "WRONG: the log-probability is averaged"),
        ("dice", ["--estimator", "ppo"], 2, ""),
    ],
)
def test_the_command(folder, capsys, name, options, status, words):
    (folder / "mine.py").write_text(FILE)
    assert main(["check", "rl-meta-gradient", f"mine.py:{name}", *options]) == status
    out, err = capsys.readouterr()
    assert out.startswith(words) and (status != 2 or "--estimator: expected one of" in err)
