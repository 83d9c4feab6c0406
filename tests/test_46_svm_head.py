"""MetaOptNet: a multi-class SVM as the head, its solver and its derivatives."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

import refmaml as rm
from refmaml import kernels
from refmaml.methods import svm_solver
from refmaml.methods.svm_head import SVMHead
from refmaml.methods.symmetric_solves import times, times_transposed
from refmaml.oracles import cases, method_checks, solved_heads
from refmaml.oracles.solved_head_checks import ETA, SIZES, head_case, head_checks, hvp_check, start
from refmaml.oracles.tolerance import relative_error

pytestmark = pytest.mark.slow

K = kernels.reference()
PROMISE = 1e-12  # what the project promises of every derivative in float64
METHOD = rm.MetaOptNet(0.75, 1.75, 0.25)


@pytest.mark.parametrize("head", [SVMHead(), SVMHead(intercept=True, cost=0.5)], ids=repr)
def test_the_four_passes_agree_with_an_active_set_and_the_complex_step(head):
    for check in head_checks(head, solved_heads.svm_weights(head.cost), K):
        assert check.passed and check.error < PROMISE, check


# ---- planted errors ------------------------------------------------------------------


class NoBounds(SVMHead):
    """The adjoint's system without the bounds: every dual variable may move."""

    def backward(self, k, saved, dw, db):
        gram = times_transposed(k, saved.X, saved.X) + saved.strength * np.eye(saved.X.shape[1])
        free = saved._replace(system=svm_solver.kkt(k, gram, 0 * saved.Z))
        return super().backward(k, free, dw, db)


class ConstantGram(SVMHead):
    """The dual variables count as constants."""

    def backward(self, k, saved, dw, db):
        dX, deta, kept = super().backward(k, saved, dw, db)
        return times(k, saved.Z, kept.dW), deta, kept


class OneSidedGram(SVMHead):
    """Only one of the two X in X X' has an adjoint."""

    def backward(self, k, saved, dw, db):
        dX, deta, kept = super().backward(k, saved, dw, db)
        return dX + times(k, kept.B, saved.W), deta, kept


class ConstantSystem(SVMHead):
    """rK is missing in the tangent of the adjoint."""

    def r_backward(self, k, saved, adjoints, tangents, rdw, rdb):
        still = adjoints._replace(V=0 * adjoints.V)
        return super().r_backward(k, saved, still, tangents, rdw, rdb)


class StoppedEarly(SVMHead):
    """Four iterations."""

    def forward(self, k, X, Y, eta):
        return SVMHead.forward(replace(self, solver_steps=4), k, X, Y, eta)


@pytest.mark.parametrize(
    "wrong, quantity",
    [
        (NoBounds(), "dX, deta"),
        (ConstantGram(), "dX, deta"),
        (OneSidedGram(), "dX, deta"),
        (ConstantSystem(), "rdX, rdeta"),
        (StoppedEarly(), "w, b"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, SVMHead) else "",
)
def test_a_planted_error_is_refused(wrong, quantity):
    failed = [c for c in head_checks(wrong, solved_heads.svm_weights(0.1), K) if not c.passed]
    found = [check for check in failed if check.quantity == quantity]
    assert len(found) == len(SIZES) and all(check.error > 1e-4 for check in found), failed


# ---- the solver ----------------------------------------------------------------------


def dual_problem(N, F, cost=0.1):
    """(K, Y, saved) of one task."""
    case = head_case(SVMHead(cost=cost), N, F)
    _, _, saved = case.head.forward(K, case.X, case.Y, ETA)
    gram = case.X @ case.X.swapaxes(1, 2) + np.exp(ETA[0]) * np.eye(N)
    return gram[0], case.Y[0], saved


@pytest.mark.parametrize("N, F", SIZES)
@pytest.mark.parametrize("cost", [0.02, 0.1, 1.0])
def test_the_solution_satisfies_the_conditions_of_optimality(N, F, cost):
    gram, Y, saved = dual_problem(N, F, cost)
    Z = saved.Z[0]
    assert (cost * Y + 1e-16 >= Z).all()
    assert np.abs(Z.sum(axis=1)).max() < 1e-14 * cost  # twenty steps round
    # Free entries of a row share one slope, nu; those at a bound want to go further.
    slope, free = gram @ Z - Y, cost * Y - Z > 1e-9 * cost
    assert free.any(axis=1).all() and not free.all()
    for row, chosen in zip(slope, free, strict=True):
        assert np.ptp(row[chosen]) < 1e-13
        assert (row[~chosen] < row[chosen].mean()).all()


def test_the_dual_value_is_that_of_scipy_s_optimiser():
    gram, Y, saved = dual_problem(6, 6)

    def value(z):
        Z = z.reshape(Y.shape)
        return (Z * (gram @ Z)).sum() / 2 - (Y * Z).sum()

    found = minimize(
        value,
        0.05 * (Y - 1 / 3).ravel(),
        method="SLSQP",
        bounds=[(None, bound) for bound in 0.1 * Y.ravel()],
        constraints={"type": "eq", "fun": lambda z: z.reshape(Y.shape).sum(axis=1)},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert abs(value(saved.Z[0].ravel()) - found.fun) < 1e-8 * abs(found.fun)
    assert value(saved.Z[0].ravel()) <= found.fun + 1e-12


def test_the_residual_falls_to_nothing_and_says_when_it_has_not():
    case = head_case(SVMHead(), 9, 4)
    residuals = []
    for steps in (2, 4, 8, 12, 20, 40):
        head = SVMHead(solver_steps=steps)
        _, _, saved = head.forward(K, case.X, case.Y, ETA)
        residuals.append(head.report(K, saved)["inner_residual"].max())
    assert residuals[0] > 1e-3 and residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < 1e-30


def test_large_features_are_solved_too():
    case = head_case(SVMHead(), 9, 4)
    for size in (0.01, 10.0, 1000.0):
        _, _, saved = SVMHead(solver_steps=30).forward(K, size * case.X, case.Y, ETA)
        assert np.isfinite(saved.W).all()
        assert (SVMHead().report(K, saved)["inner_residual"] < 1e-12).all()


# ---- the meta-gradient ---------------------------------------------------------------


NETS = {
    "convolutions": cases.smooth_net(),
    "vectors": rm.Sequential(
        [rm.Linear(5, 9), rm.Tanh(), rm.Linear(9, 3, bias=False)], rm.CrossEntropy(), (5,)
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_meta_gradient_and_second_derivative_are_those_of_the_complex_step(name):
    net = NETS[name]
    meta, batch = start(METHOD, net)
    for check in (
        method_checks.meta_gradient_check(METHOD, net, meta, batch),
        hvp_check(METHOD, net, meta, batch, name),
    ):
        assert check.passed and check.error < PROMISE, check


def test_chunks_change_no_bit_and_float32_agrees():
    net = NETS["convolutions"]
    meta, _ = start(METHOD, net)
    batch = cases.tasks_for(net, np.random.default_rng(3), tasks=5)
    whole = METHOD.meta_gradient(net, meta, batch, chunk=5)
    assert np.array_equal(METHOD.meta_gradient(net, meta, batch, chunk=2).grad, whole.grad)
    single = METHOD.meta_gradient(net, meta.astype(np.float32), batch)
    assert single.grad.dtype == np.float32 and relative_error(single.grad, whole.grad) < 1e-4
    assert (single.report["inner_residual"] < 1e-6).all()


@pytest.mark.parametrize(
    "fields, line",
    [
        ({"cost": 0.0}, "^cost: expected a finite number > 0"),
        ({"solver_steps": 0}, "^solver_steps: expected an integer >= 1"),
        ({"strength": np.inf}, "^strength: expected a finite number > 0"),
    ],
)
def test_a_bad_field_is_refused(fields, line):
    with pytest.raises(rm.ArgumentError, match=line):
        rm.MetaOptNet(**fields)
