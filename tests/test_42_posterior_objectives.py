"""The variational objective with a query loss: a point and a Gaussian as posterior."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import complex_step, dense
from refmaml.oracles.anchor_objectives import variational_objective
from refmaml.oracles.posterior_objectives import gaussian_objective, point_objective
from refmaml.oracles.tolerance import relative_error

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import double_well  # a script beside the package

PRECISE = 1e-12
STRENGTH = 4.0
METHOD = rm.IMAML(STRENGTH, 10, solver="newton_cg", cg_steps=20, cg_tol=1e-15)
NET = rm.Sequential([rm.Linear(2, 4), rm.Tanh(), rm.Linear(4, 1)], rm.MSE(), (2,), "reference")
RNG = np.random.default_rng(0)
BATCH = rm.Batch(*(RNG.standard_normal(s) for s in ((2, 5, 2), (2, 5, 1), (2, 4, 2), (2, 4, 1))))
THETA = 0.8 * RNG.standard_normal(NET.num_params)
SAME = rm.Batch(BATCH.x_support, BATCH.y_support, BATCH.x_support, BATCH.y_support)


@cache
def truth_of(name):
    """(J, dJ/dtheta) by the complex step through descent on F."""
    batch = {"query": BATCH, "support": SAME}[name]

    def J(rows):
        total = 0
        for t in range(len(batch)):
            x, y, xq, yq = (np.repeat(a[t : t + 1], len(rows), axis=0) for a in batch.all_arrays)
            phi = rows
            for _ in range(100):  # contracts by 0.6 a step: 1e-22
                phi = phi - 0.1 * (NET.gradient(phi, x, y) + STRENGTH * (phi - rows))
            penalty = STRENGTH / 2 * ((phi - rows) ** 2).sum(axis=1)
            total = total + NET.loss(phi, xq, yq) + penalty
        return total / len(batch)

    return J(THETA[None])[0], complex_step.gradient(J, THETA)


# ---- a point -------------------------------------------------------------------------


def test_a_point_with_a_query_loss():
    value, grad = truth_of("query")
    found = point_objective(NET, METHOD, THETA, BATCH)
    assert found.value == pytest.approx(value, rel=1e-13)
    assert relative_error(found.grad, grad) < PRECISE


def test_a_point_with_the_support_loss_has_the_envelope_s_gradient():
    found = point_objective(NET, METHOD, THETA, SAME)
    phi = METHOD.adapt(NET, THETA, BATCH.x_support, BATCH.y_support)
    assert relative_error(found.grad, STRENGTH * (THETA - phi.mean(axis=0))) < PRECISE
    assert relative_error(found.grad, truth_of("support")[1]) < PRECISE


def test_a_point_by_dense_algebra():
    expected = 0
    for t in range(2):
        x, y = BATCH.x_support[t : t + 1], BATCH.y_support[t : t + 1]
        phi = METHOD.adapt(NET, THETA, x, y)[0]
        H = dense.hessian(NET, phi, x, y)
        f = NET.gradient(phi[None], x, y)[0]
        g = NET.gradient(phi[None], BATCH.x_query[t : t + 1], BATCH.y_query[t : t + 1])[0]
        u = np.linalg.solve(H + STRENGTH * np.eye(len(H)), g - f)
        expected = expected + (f + STRENGTH * u) / 2
    found = point_objective(NET, METHOD, THETA, BATCH)
    assert relative_error(found.grad, expected) < PRECISE


def test_planted_errors_in_the_point_are_caught():
    grad = truth_of("query")[1]
    phi = METHOD.adapt(NET, THETA, BATCH.x_support, BATCH.y_support)
    pull = STRENGTH * (THETA - phi.mean(axis=0))
    implicit = METHOD.meta_gradient(NET, THETA, BATCH).grad
    wrong = {"imaml": implicit, "envelope": pull, "f' is not subtracted": pull + implicit}
    for name, other in wrong.items():
        assert relative_error(other, grad) > 1e-2, name


def test_the_double_well_has_the_numbers_that_were_derived_before_it():
    method = rm.IMAML(4.0, 400, 0.1, cg_steps=3, cg_tol=1e-15)
    task, x = double_well.TASK, double_well.SUPPORT
    theta = np.array([double_well.THETA])
    with_query = point_objective(double_well.NET, method, theta, task).grad[0]
    with_support = point_objective(double_well.NET, method, theta, rm.Batch(x, x, x, x)).grad[0]
    assert with_query == pytest.approx(0.23093269918030668, rel=1e-12)
    assert with_support == pytest.approx(-0.43299390340952115, rel=1e-12)


def test_the_point_needs_a_method_in_which_everything_adapts():
    with pytest.raises(rm.ArgumentError, match="method: expected one in which every"):
        point_objective(NET, rm.IMAML(4.0, adapts=("head",)), THETA, BATCH)


# ---- a Gaussian ----------------------------------------------------------------------


def well_gaussian(theta, start=(None, None), query=double_well.QUERY):
    return gaussian_objective(
        double_well.NET, theta, double_well.SUPPORT, query, STRENGTH, start, 30
    )


def test_the_gaussian_is_the_one_that_minimises_the_free_energy():
    known = variational_objective(double_well.NET, 0.25, double_well.SUPPORT, STRENGTH)
    found = well_gaussian(0.25, (known.mean, known.deviation))
    assert found.mean == pytest.approx(known.mean, abs=1e-10)
    assert found.deviation == pytest.approx(known.deviation, abs=1e-10)


def test_a_gaussian_with_a_query_loss_by_the_complex_step():
    """Newton's method in complex arithmetic, from the real solution."""
    found = well_gaussian(0.25)
    moved = well_gaussian(0.25 + 1e-30j, (found.mean + 0j, found.deviation + 0j))
    assert found.gradient == pytest.approx(moved.value.imag / 1e-30, rel=PRECISE)


def test_planted_errors_in_the_gaussian_are_caught():
    found = well_gaussian(0.25)
    z = np.linspace(-11, 11, 2001)
    w = np.exp(-z * z / 2)
    points, w = found.mean + found.deviation * z, w / w.sum()
    curved, skewed, wide = (w @ (z**p * double_well.wells(points, None, 2)) for p in range(3))
    slopes = [w @ (z**p * double_well.query(points, None, 1)) for p in range(2)]
    last = STRENGTH + 1 / found.deviation**2 + wide
    right = np.array([[STRENGTH + curved, skewed], [skewed, last]])
    rhs = np.array([STRENGTH, 0.0])
    assert slopes @ np.linalg.solve(right, rhs) == pytest.approx(found.gradient, rel=1e-10)
    wrong = {
        "the envelope": STRENGTH * (0.25 - found.mean),
        "the width is a constant": slopes[0] * STRENGTH / (STRENGTH + curved),
        "no entropy": slopes @ np.linalg.solve(right - np.diag([0, 1 / found.deviation**2]), rhs),
    }
    for name, other in wrong.items():
        assert abs(other / found.gradient - 1) > 1e-3, name


def test_the_gaussian_of_a_quadratic_is_known():
    a, c, d, theta = 3.0, 1.2, -0.4, 0.7
    net = rm.ScalarFunction(
        lambda w, x: np.where(x[:, 0] == 0, a / 2 * (w - c) ** 2, (w - d) ** 2 / 2),
        lambda w, x: np.where(x[:, 0] == 0, a * (w - c), w - d),
        lambda w, x: np.where(x[:, 0] == 0, a + 0 * w, 1 + 0 * w),
    )
    found = gaussian_objective(net, theta, np.zeros((1, 1)), np.ones((1, 1)), 2.0)
    mean = (2 * theta + a * c) / (2 + a)
    assert found.mean == pytest.approx(mean, rel=1e-13)
    assert found.deviation == pytest.approx((2 + a) ** -0.5, rel=1e-13)
    assert found.value == pytest.approx(((mean - d) ** 2 + 1 / (2 + a)) / 2, rel=1e-13)
    assert found.gradient == pytest.approx((mean - d) * 2 / (2 + a), rel=1e-13)
