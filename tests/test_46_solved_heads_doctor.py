"""The doctor on solved heads, ALPaCA and CNP in PyTorch: no name for a right function,
and the mistake of a wrong one by its name."""

import re
from pathlib import Path

import pytest
from solved_implementations import alpaca, cnp, logistic, of_head, ridge, svm

import refmaml as rm
from refmaml.doctor.builtin_cases import builtin_cases
from refmaml.doctor.dictionary import candidate, dictionary
from refmaml.oracles.tolerance import relative_error

R2D2, LRD2, SVM = rm.R2D2(0.75, 1.75, 0.25), rm.LRD2(1.5), rm.MetaOptNet(1.5, cost=0.3)
ALPACA, CNP = rm.ALPaCA(0.75, 0.25), rm.CNP((6, 5))
BY_CLASS = rm.CNP((6, 5), by_class=True)
METHODS = (R2D2, LRD2, SVM, ALPACA, CNP, BY_CLASS)
ONE = {"R2D2": ("mlp",), "LRD2": ("mlp",), "MetaOptNet": ("mlp",)}

pytestmark = pytest.mark.frameworks("torch")


def judged(fn, method, **options):
    given = {"framework": "torch", "precision": "float64", "repeats": 0} | options
    return rm.check_meta_gradient(fn, method, **given)


def named(fn, method, words):
    probes = ONE.get(type(method).__name__, ("two-layer", "mlp"))
    probes = ("mlp", "conv") if method == BY_CLASS else probes
    report = judged(fn, method, probes=probes)
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)
    assert report.fix
    return report


RIGHT = {
    "r2d2": (of_head(ridge), R2D2),
    "r2d2 with an intercept": (of_head(ridge), rm.R2D2(0.5, intercept=True)),
    "lrd2": (of_head(logistic), LRD2),
    "lrd2 by the implicit derivative": (of_head(logistic, implicit=True), LRD2),
    "lrd2 through two steps": (
        of_head(logistic, steps=2),
        rm.LRD2(newton_steps=2, differentiate="iterations"),
    ),
    "metaoptnet": (of_head(svm), SVM),
    "metaoptnet with the paper's bound": (of_head(svm), rm.MetaOptNet(intercept=True)),
    "alpaca": (alpaca(), ALPACA),
    "cnp": (cnp(), CNP),
    "cnp of the default size": (cnp(), rm.CNP()),
    "cnp by class": (cnp(), BY_CLASS),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_function_is_right(name):
    report = judged(*RIGHT[name])
    assert report.verdict == "right", str(report)


@pytest.mark.parametrize("name", ["r2d2", "lrd2", "metaoptnet", "alpaca", "cnp"])
def test_a_right_function_is_right_in_float32(name):
    report = judged(*RIGHT[name], precision=None)
    assert report.verdict == "right", str(report)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_the_right_candidate_is_the_method_and_no_mistake_is(method):
    """Up to an early stop that is late enough."""
    unseen = {}
    cases, _ = builtin_cases(method)
    for case in cases:
        assert relative_error(candidate(case, {}), case.truth) < 1e-12
        for mistake in dictionary(method):
            changes = mistake.changes_on(case)
            same = changes and relative_error(candidate(case, changes), case.truth) < 1e-9
            unseen.setdefault(mistake.name, []).append(bool(same))
    hidden = [name for name, same in unseen.items() if all(same)]
    late = ("Newton's method stops after", "the solver of the dual stops after 10 steps")
    assert all(name.startswith(late) for name in hidden)


HEAD = {
    "a constant: nothing goes back through the solve": {"detached": True},
    "the query features are constants": {"still": True},
    "nothing is solved": {"unsolved": True},
    "twice the solution": {"factor": 2.0},
    "half the solution": {"factor": 0.5},
    "not scaled by alpha": {"scaled": False},
    "lambda is ell itself": {"lam": lambda ell, N: ell},
    "lambda counts N times": {"lam": lambda ell, N: N * ell.exp()},
    "lambda counts twice": {"lam": lambda ell, N: 2 * ell.exp()},
    "lambda counts half": {"lam": lambda ell, N: ell.exp() / 2},
    "lambda is a constant": {"lam": lambda ell, N: ell.exp().detach()},
    "lambda is 1": {"lam": lambda ell, N: 1 + 0 * ell.detach()},
    "support and query sets are swapped": {"swapped": True},
    "only the first task": {"count": 1},
}


@pytest.mark.parametrize("words", HEAD)
def test_a_mistake_of_a_ridge_head_is_named(words):
    named(of_head(ridge, **HEAD[words]), R2D2, words)


@pytest.mark.parametrize(
    "words, choice",
    [
        ("only X'Y is differentiated", {"inverse": False}),
        ("2 Y in place of Y, or labels of 1 and -1", {"signs": True}),
    ],
)
def test_a_mistake_of_ridge_regression_alone_is_named(words, choice):
    """Labels of 1 and -1 under a softmax: 2 Y, and a number that all outputs have."""
    named(of_head(ridge, **choice), R2D2, words)


@pytest.mark.parametrize("words", [w for w in HEAD if "swapped" not in w and "task" not in w][::3])
@pytest.mark.parametrize("solve, method", [(logistic, LRD2), (svm, SVM)], ids=["lrd2", "svm"])
def test_the_same_mistakes_of_other_heads_are_named(words, solve, method):
    named(of_head(solve, **HEAD[words]), method, words)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_newton_s_method_that_stops_early_is_named(steps):
    words = f"Newton's method stops after {steps} step"
    report = named(of_head(logistic, steps=steps), LRD2, words)
    assert "differentiated as if" not in report.diagnosis
    report = named(of_head(logistic, steps=steps, implicit=True), LRD2, words)
    assert "differentiated as if at the optimum" in report.diagnosis


@pytest.mark.parametrize(
    "words, choice",
    [
        ("lets the entries at their bounds move", {"still": False}),
        ("0.1, a constant of the function's own", {"cost": 0.1}),
        ("twice problem.method.cost", {"cost": 0.6}),
    ],
)
def test_a_mistake_of_the_dual_is_named(words, choice):
    choice = {"free" if name == "still" else name: value for name, value in choice.items()}
    solve = svm_with(**choice)
    named(of_head(solve), SVM, words)


@pytest.mark.parametrize("maxiter", [1, 3, 5, 8])
def test_a_solver_of_the_dual_that_stops_early_is_named(maxiter):
    from qpth_by_hand import svm_until

    named(of_head(svm_until(maxiter)), SVM, f"stops as qpth does with maxIter={maxiter}")


def test_a_limit_on_slacks_and_multipliers_is_named():
    """Those of qpth, which stops at residuals of 1e-12. Without both it is right."""
    from qpth_by_hand import svm_until

    named(of_head(svm_until(50)), SVM, "slacks and multipliers count as 1e-8 at least")
    (case,), _ = builtin_cases(SVM, ("mlp",))
    error = relative_error(candidate(case, {"maxiter": 50}), case.truth)
    document = (Path(__file__).parent.parent / "docs/solved_heads.md").read_text()
    assert f"was {error:.0e}".replace("e-07", "e-7") + " off" in document
    right = judged(of_head(svm_until(14, least=0.0, eps=0.0)), SVM, probes=("mlp",))
    assert right.verdict == "right", str(right)


@pytest.mark.parametrize("steps", [2, 4])
def test_our_own_solver_that_stops_early_is_named(steps):
    from qpth_by_hand import svm_after

    named(of_head(svm_after(steps)), SVM, f"the solver of the dual stops after {steps} steps")


def svm_with(free=True, cost=None):
    return lambda X, Y, lam, problem: svm(X, Y, lam, problem, cost=cost, still=free)


ALPACA_MISTAKES = {
    "leaves out the weights' uncertainty": "noise alone",
    "the predictive variance s is a constant": "fixed spread",
    "no logarithm of the variance": "no log",
    "counts once for all outputs": "one log",
    "squared error of the posterior's mean": "squared error",
    "not scaled by the noise": "bare prior",
    "the prior's mean is 0": "zero mean",
    "without its precision": "bare mean",
    "the posterior is a constant": "posterior",
    "the query features are constants": "query features",
}


@pytest.mark.parametrize("words", ALPACA_MISTAKES)
def test_a_mistake_of_alpaca_is_named(words):
    named(alpaca(ALPACA_MISTAKES[words]), ALPACA, words)


CNP_MISTAKES = {
    "summed over examples": "sum",
    "only the last example": "last",
    "each example gets dr, not dr / N": "share",
    "does not see the targets": "blind",
    "the encoder has no gradient": "detached",
    "the encoding is not used": "unused",
    "the encoder sees the query set": "query",
    "sees support and query together": "both",
}


@pytest.mark.parametrize("words", CNP_MISTAKES)
def test_a_mistake_of_a_neural_process_is_named(words):
    named(cnp(CNP_MISTAKES[words]), CNP, words)


@pytest.mark.parametrize(
    "words", [w for w in CNP_MISTAKES if CNP_MISTAKES[w] not in ("blind", "both")]
)
def test_the_same_mistakes_of_means_by_class_are_named(words):
    named(cnp(CNP_MISTAKES[words]), BY_CLASS, words)


def test_every_name_of_the_document_is_known():
    text = (Path(__file__).parent.parent / "docs/solved_heads.md").read_text()
    table = text.partition("| method | names |")[2].partition("\n\n")[0]
    known = {m.name for method in METHODS for m in dictionary(method)}
    quoted = re.findall(r'"([^"]+)"', table)
    assert len(quoted) > 20 and set(quoted) <= known


def test_at_least_fifteen_mistakes_are_those_of_these_methods():
    of_others = {m.name for m in dictionary(rm.MAML(0.1, 3)) + dictionary(rm.ERM())}
    own = {m.name for method in METHODS for m in dictionary(method)} - of_others
    assert len(own) >= 40
    assert len(own & {m.name for m in dictionary(R2D2)}) >= 15


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_a_loss_of_one_s_own_has_no_head_and_no_context(method):
    import torch

    w, x = torch.ones(3, 1, dtype=torch.float64), torch.ones(2, 4, 3)
    given = {"loss": lambda p, x, y: (x @ p["w"]).mean(), "params": {"w": w}, "batch": [x] * 4}
    with pytest.raises(rm.ArgumentError, match=r"^method: expected a method with.*\(net=\)") as e:
        judged(lambda params, batch: params, method, **given)
    assert str(e.value).endswith(type(method).__name__) and "\n" not in str(e.value)


def test_a_negative_lambda_is_no_crash():
    """ell < 0, and a function that takes it for lambda: no candidate is possible."""
    fn = of_head(ridge, lam=lambda ell, N: ell)
    report = judged(fn, rm.R2D2(0.3), probes=("mlp",))
    assert report.verdict == "wrong" and report.diagnosis


def test_a_stage_is_not_guessed_where_no_name_fits():
    def noise(problem, params, batch):
        right = of_head(ridge)(problem, params, batch)
        return {name: g + 0.1 * g.flatten().cumsum(0).sin().reshape(g.shape)
                for name, g in right.items()}  # fmt: skip

    report = judged(noise, R2D2, probes=("mlp",))
    assert report.verdict == "wrong" and report.diagnosis.startswith("no mistake of the dictionary")
