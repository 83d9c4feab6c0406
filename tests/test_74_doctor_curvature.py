"""The doctor on Meta-Curvature: right functions are right, and mistakes have names."""

import numpy as np
import pytest
from implementations import average, plus, tasks

import refmaml as rm
from refmaml.doctor.builtin_cases import builtin_case
from refmaml.doctor.dictionary import candidate, dictionary

pytestmark = pytest.mark.slow
METHOD = rm.MetaCurvature(0.1, 3)
AXES = ("outputs", "inputs", "taps")


def matrices_of(params, name):
    """The matrices of one array."""
    keys = [f"curvature.{name}.{axis}" for axis in AXES]
    return [params[key] for key in keys if key in params]


def applied(matrices, G, skip=None):
    """G with a matrix along each of its axes, the taps of a filter being one axis."""
    if not matrices:
        return G
    shape = G.shape
    G = G.reshape(*shape[:2], -1) if len(matrices) > 2 else G.reshape(shape[: len(matrices)])
    for n, M in enumerate(matrices):
        if n != skip:
            G = np.moveaxis(np.tensordot(M, G, axes=(1, n)), 0, n)
    return G.reshape(shape)


def shares(matrices, D, G):
    """The adjoint of each matrix."""
    axes = len(matrices)
    flat = (lambda a: a.reshape(*a.shape[:2], -1)) if axes > 2 else (
        lambda a: a.reshape(a.shape[:axes]))  # fmt: skip
    found = []
    for n in range(axes):
        others = [m for m in range(axes) if m != n]
        turned = flat(applied(matrices, G, skip=n))
        found.append(np.tensordot(flat(D), turned, axes=(others, others)))
    return found


def meta_curvature(problem, params, batch, turned=True, own=1.0, query=False, used=True):
    """The recursion by hand. turned: the adjoint has M'; own: a factor of dM;
    query: dM has the query gradient; used: the steps have the matrices."""
    alpha, names, rows = problem.method.inner_lr, problem.net.shapes, []
    M = {n: matrices_of(params, n) if used else [] for n in names}
    back = {n: [m.T if turned else m for m in M[n]] for n in names}
    for xs, ys, xq, yq in tasks(batch):
        phis, gs = [{n: params[n] for n in names}], []
        for _ in range(problem.method.inner_steps):
            gs.append(problem.gradient(phis[-1], xs, ys))
            phis.append(plus(-alpha, {n: applied(M[n], gs[-1][n]) for n in names}, phis[-1]))
        lam = direct = problem.gradient(phis[-1], xq, yq)
        row = {k: np.zeros_like(a) for k, a in params.items() if k not in names}
        for phi, g in zip(phis[-2::-1], gs[::-1], strict=True):
            for n in names if used else ():
                D = -alpha * (direct if query else lam)[n]
                for axis, dM in zip(AXES, shares(M[n], D, g[n]), strict=False):
                    row[f"curvature.{n}.{axis}"] += own * dM
            gam = {n: applied(back[n], -alpha * lam[n]) for n in names}
            lam = plus(1, problem.hvp(phi, xs, ys, gam), lam)
        rows.append({**lam, **row})
    return average(rows)


def wrong(**form):
    def function(problem, params, batch):
        return meta_curvature(problem, params, batch, **form)

    return function


def checked(fn, method=METHOD, **options):
    options = {"repeats": 0, "precision": "float64", "probes": ("quadratic", "mlp")} | options
    return rm.check_meta_gradient(fn, method, **options)


def test_a_right_function_is_called_right_on_every_case():
    report = checked(meta_curvature, probes=None)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "form,words",
    [
        ({"turned": False}, "the adjoint goes through M, not M'"),
        ({"own": 0.0}, "the matrices have no gradient"),
        ({"own": -1.0}, "the matrices' gradient has the wrong sign"),
        ({"query": True}, "the matrices' gradient is first-order"),
        ({"used": False}, "the matrices are not used: the steps are MAML's"),
    ],
    ids=str,
)
def test_a_mistake_has_a_name(form, words):
    report = checked(wrong(**form))
    assert report.verdict == "wrong" and words in report.diagnosis and report.fix, str(report)


@pytest.mark.parametrize("probe", ["quadratic", "mlp", "conv"])
def test_the_variant_without_a_mistake_is_the_method_and_all_others_differ(probe):
    case = builtin_case(probe, rm.MetaCurvature(0.05, 3, rule=rm.SGD(momentum=0.5)))
    size = np.abs(case.truth).max()
    assert np.abs(candidate(case, {}) - case.truth).max() < 1e-12 * size
    own = [m for m in dictionary(case.method) if m.row == "matrices"]
    assert len(own) == 9
    for mistake in own:
        off = np.abs(candidate(case, mistake.changes_on(case)) - case.truth).max()
        assert off > 1e-6 * size, mistake.name


def test_an_error_without_a_name_is_placed():
    def off(problem, params, batch):
        right = meta_curvature(problem, params, batch)
        return {n: a + 0.3 * np.sin(a) for n, a in right.items()}

    report = checked(off, probes=("mlp",), seconds=2)
    assert report.verdict == "wrong" and report.stages, str(report)
