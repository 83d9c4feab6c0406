"""The doctor on Sign-MAML: its right gradient is the first-order one."""

import numpy as np
import pytest
from implementations import average, plus, tasks, times

import refmaml as rm

pytestmark = pytest.mark.slow
SIGNS = rm.MAML(0.05, 3, rule=rm.Sign())


def sign_maml(problem, params, batch, straight=False):
    """Steps along the signs. straight: the adjoint takes them for the gradients."""
    alpha, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in tasks(batch):
        phis = [params]
        for _ in range(problem.method.inner_steps):
            g = problem.gradient(phis[-1], xs, ys)
            phis.append(plus(-alpha, {n: np.sign(a) for n, a in g.items()}, phis[-1]))
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1] if straight else ():
            lam = plus(-alpha, problem.hvp(phi, xs, ys, lam), lam)
        rows.append(times(1, lam))
    return average(rows)


def straight_through(problem, params, batch):
    return sign_maml(problem, params, batch, straight=True)


def checked(fn, method, **options):
    options = {"repeats": 0, "precision": "float64", "probes": ("quadratic", "mlp")} | options
    return rm.check_meta_gradient(fn, method, **options)


def test_a_right_sign_maml_is_called_right():
    report = checked(sign_maml, SIGNS, probes=None)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    "fn,method,words",
    [
        (straight_through, SIGNS, "the sign counts as the identity in the derivative"),
        (sign_maml, rm.MAML(0.05, 3), "the inner steps take the sign of the gradient"),
    ],
)
def test_a_mistake_has_a_name(fn, method, words):
    report = checked(fn, method)
    assert report.verdict == "wrong" and words in report.diagnosis and report.fix, str(report)
