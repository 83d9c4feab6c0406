"""Which estimator, and which objective, is a policy's meta-gradient?

Programs of meta-reinforcement learning compute many different meta-gradients, whose
sums over random trajectories look alike. On a frozen batch each is a deterministic
function, and can be told from the others to rounding.
"""

from typing import Any

import numpy as np

from refmaml.checks.calls import Scope, called, check_function, check_settings
from refmaml.checks.report import CheckReport, Row
from refmaml.checks.rl.answers import Fit, explained, fitted
from refmaml.checks.rl.forms import RIGHT_FORMS
from refmaml.checks.rl.probe import Probe, arguments_of, probe_of
from refmaml.checks.rl.recipes import Recipe, computed
from refmaml.checks.rl.words import (
    ALIASES,
    FIXES,
    KINDS,
    RIGHT_KINDS,
    Mistake,
    kind_of,
    mistakes_of,
    name_of,
    objective_of,
)
from refmaml.checks.trees import Tree
from refmaml.doctor.frameworks import framework as framework_called
from refmaml.doctor.frameworks import unchanged_inputs
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG
from refmaml.errors import expect
from refmaml.version import __version__

PROBES = 2
ESTIMATORS = ("any", *KINDS, *ALIASES)
OF, OVER, LIBRARIES = ("return", "loss"), ("trajectories", "steps"), ("numpy", "torch", "jax")
FORM = "fn(problem, params, batch) -> {name: array}"
REPEATS = 1e-10  # relative: sums in another order


def check_rl_meta_gradient(
    fn, *, estimator="any", inner_steps=1, over="trajectories", of="return",
    framework="numpy", tol=None, precision="float64", seed=0,
):  # fmt: skip
    """Which meta-gradient of a policy fn computes, on frozen batches, as a CheckReport.

    fn        fn(problem, params, batch) -> {name: array}: the mean over tasks of the
              meta-gradient. problem has inner_lr, log_probs(params, states, actions),
              ... (refmaml.checks.rl.probe.PolicyProblem); batch.inner[k], batch.outer
              and batch.second[k] have states, actions, rewards, advantages, log_probs,
              each (T, N, H, ...)
    estimator the one that is meant: "naive", "lvc", "dice", "first_order", each of them
              with "+score", or "emaml", which is "naive+score". "any": an estimator of
              the gradient of J_I or J_II, which is DiCE, or naive with the score term
    inner_steps  K, at least 1
    over      what sums over steps are divided by: "trajectories" N, or "steps" N H
    of        "return": fn returns the gradient of J; "loss": that of -J
    framework "numpy", "torch" or "jax": the library of the arrays
    tol, precision, seed   as in check_gradient
    The report names the estimator, the objective that it belongs to, and mistakes. A
    baseline that is subtracted from J in the score term is accepted.
    Raises ArgumentError in one line for other arguments and for what fn raises.
    """
    tol = check_settings(precision, tol, seed)
    check_function(fn, "fn", FORM)
    kind = check_choices(estimator, inner_steps, over, of, framework)
    lib = framework_called(framework)
    probes = [probe_of(seed + i, inner_steps, over, precision) for i in range(PROBES)]
    sign = -1 if of == "loss" else 1
    with lib.scope(), Scope():
        ys = [sign * answer_of(fn, probe, lib, precision) for probe in probes]
        again = sign * answer_of(fn, probes[0], lib, precision)
    report = judged(ys, again, probes, kind, tol)
    report.about.update(
        calls=PROBES + 1,
        seed=seed,
        precision=precision,
        framework=framework,
        versions={"refmaml": __version__, "numpy": np.__version__},
    )
    return report


def check_choices(estimator, inner_steps, over, of, framework):
    """The kind that is meant; None: any. Raises ArgumentError for another argument."""
    wanted = f"one of {', '.join(ESTIMATORS)}"
    known = isinstance(estimator, str) and estimator in ESTIMATORS
    expect(known, "estimator", wanted, lambda: repr(estimator))
    kind = None if estimator == "any" else ALIASES.get(estimator, estimator)
    whole = isinstance(inner_steps, int) and not isinstance(inner_steps, bool)
    expect(whole and inner_steps >= 1, "inner_steps", "an integer >= 1", lambda: repr(inner_steps))
    choices = (("over", over, OVER), ("of", of, OF), ("framework", framework, LIBRARIES))
    for name, value, known in choices:
        expect(value in known, name, f"one of {', '.join(known)}", repr(value))
    return kind


def answer_of(fn: Any, probe: Probe, lib: Any, precision: str) -> np.ndarray:
    """What fn returns on a probe, as a vector (P,)."""
    problem, params, batch = arguments_of(probe, lib, precision)
    inputs = {f"params[{name!r}]": [a] for name, a in params.items()}
    for i, part in enumerate((*batch.inner, *batch.second, batch.outer)):
        inputs |= {f"batch {i}: {name}": [a] for name, a in part._asdict().items()}
    with unchanged_inputs(lib, inputs):
        value = called(fn, "fn", "a meta-gradient", problem, params, batch)
    tree = Tree(probe.named(probe.theta), "params")
    flat, _ = tree.flat(value, "the meta-gradient")
    bad = int((~np.isfinite(flat)).sum())
    expect(not bad, "the meta-gradient", "finite numbers", f"{bad} that are NaN or infinite")
    return flat


# ---- the verdict ---------------------------------------------------------------------


def judged(ys, again, probes, kind, tol):
    """The CheckReport of answers on all probes."""
    size = np.linalg.norm(ys[0])
    if np.linalg.norm(ys[0] - again) > REPEATS * size:
        text = "the answer changes from call to call"
        fix = "fix the seed of what it draws: the batch itself is frozen"
        return report_of(INCONCLUSIVE, text, fix)
    if any(not np.linalg.norm(y) for y in ys):
        text = "the answer is 0: the old policy is not detached in the meta-loss"
        fix = "detach the old log-probabilities, or take them from the batch (batch.log_probs)"
        return report_of(WRONG, text, fix, rows=rows_of(ys, probes, kind, tol))
    meant = fitted(ys, probes, recipe_of(kind), tol) if kind is not None else None
    found = meant if meant is not None and not meant.mistakes else explained(ys, probes, tol)
    if found is None:
        text = "it is none of the known estimators, nor one with a known mistake"
        fix = "compare the answers step by step with rm.PolicyMAML on batches of your own"
        return report_of(WRONG, text, fix, rows=rows_of(ys, probes, kind, tol))
    return of_fit(found, ys, probes, kind, tol)


def recipe_of(kind: str) -> Recipe:
    """The Recipe of a kind, without its score term."""
    base = kind.partition("+")[0]
    forms = {form.key: form for form in RIGHT_FORMS}
    return Recipe(first_order=True) if base == "first_order" else Recipe(forms[base])


def of_fit(fit: Fit, ys, probes, kind, tol):
    """The CheckReport of answers that a recipe explains."""
    got, mistakes = kind_of(fit), mistakes_of(fit)
    wanted = kind in (None, got) and (kind is not None or got in RIGHT_KINDS)
    remarks = (remark_of(fit),) if fit.recipe.independent or fit.baseline else ()
    rows = rows_of(ys, probes, got if not mistakes and wanted else kind, tol)
    if not mistakes and wanted:
        text = f"{name_of(got)}: it estimates the gradient of {objective_of(fit)}"
        return report_of(RIGHT, text, rows=rows, remarks=remarks)
    known = fit.recipe.form in RIGHT_FORMS and fit.recipe.scale != 0
    if not wanted and known:
        mistakes = [*mistakes, of_choice(fit, kind)]
    first, *others = mistakes
    text = first.text if not others else f"{first.text} (and {len(others)} more)"
    findings = tuple(f"{m.text}; {m.fix}" for m in others)
    if known and mistakes_of(fit):
        remarks = (f"the rest is {name_of(got)}", *remarks)
    return report_of(WRONG, text, first.fix, findings, rows, remarks)


def of_choice(fit: Fit, kind) -> Mistake:
    """Another estimator than the one that is meant."""
    got = kind_of(fit)
    about = f"it estimates the gradient of {objective_of(fit)}"
    base, plus, _ = got.partition("+")
    fix = FIXES["score" if plus else base]
    if kind is None:
        return Mistake(f"{name_of(got)}: {about}", f'{fix}; or pass estimator="{got}", if meant')
    return Mistake(f"{name_of(got)} in place of {name_of(kind)}: {about}", fix)


def remark_of(fit: Fit) -> str:
    """A convention that is no mistake."""
    if fit.baseline:
        return "in the score term, J is less a baseline that all tasks share"
    return "the Hessians are those of batch.second, independent of the steps"


def rows_of(ys, probes, kind, tol):
    """A Row for each probe: the answer beside the estimator that is meant."""
    kind = "dice" if kind is None else kind
    rows = []
    for i, (y, probe) in enumerate(zip(ys, probes, strict=True)):
        errors = []
        for independent in (False, True):
            answer = computed(probe, recipe_of(kind)._replace(independent=independent))
            J = probe.mean_return()[:, None] if kind.endswith("+score") else 0
            truth = (answer.base + J * answer.scores).mean(axis=0)
            off = np.linalg.norm(y - truth) / max(np.linalg.norm(y), np.linalg.norm(truth))
            errors.append((float(off), float(y @ truth / (truth @ truth))))
        error, factor = min(errors)
        right = error <= tol
        name = f"frozen batch {i}, beside {kind}"
        rows.append(Row(name, error, tol, factor if right else float("nan"),
                        RIGHT if right else WRONG))  # fmt: skip
    return tuple(rows)


def report_of(verdict, text, fix="", findings=(), rows=(), remarks=()):
    """A CheckReport of this check."""
    return CheckReport("rl_meta_gradient", verdict, text, fix, findings, rows, remarks)
