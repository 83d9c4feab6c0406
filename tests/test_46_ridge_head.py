"""The ridge head: its four passes, and what wrong code computes."""

import numpy as np
import pytest

from refmaml import kernels
from refmaml.methods.ridge_head import RidgeHead
from refmaml.methods.symmetric_solves import (
    Ridge,
    inner_product,
    times,
    times_transposed,
    transposed_times,
)
from refmaml.oracles import solved_heads
from refmaml.oracles.solved_head_checks import SIZES, head_case, head_checks
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
PROMISE = 1e-12  # what the project promises of every derivative in float64


# ---- the four passes -----------------------------------------------------------------


def test_the_four_passes_agree_with_lapack_and_the_complex_step():
    for intercept in (False, True):
        for check in head_checks(RidgeHead(intercept=intercept), solved_heads.ridge_weights, K):
            assert check.passed and check.error < PROMISE, check


class TwiceTheSolution(RidgeHead):
    """What a quadratic program with 1/2 in the wrong place returns."""

    def forward(self, k, X, Y, eta):
        w, b, saved = super().forward(k, X, Y, eta)
        return 2 * w, b, saved


class LinearStrength(RidgeHead):
    """The derivative in lambda where that in its logarithm is due."""

    def backward(self, k, saved, dw, db):
        dX, deta, kept = super().backward(k, saved, dw, db)
        deta[:, 0] /= saved.system.strength
        return dX, deta, kept


class ConstantGram(RidgeHead):
    """X'X counts as a constant: the second term of dX is missing."""

    def backward(self, k, saved, dw, db):
        _, deta, kept = super().backward(k, saved, dw, db)
        return times(k, saved.R, kept.U), deta, kept


class OneSidedGram(RidgeHead):
    """Only one of the two X in X'X has a tangent."""

    def r_forward(self, k, saved, rX, reta):
        rw, rb, kept = super().r_forward(k, saved, rX, reta)
        turned = transposed_times(k, times_transposed(k, saved.system.x, saved.W), rX)
        rW = kept.rW - saved.system.solve(k, turned)
        return rw - saved.alpha * kept.rW + saved.alpha * rW, rb, kept


class FrozenResidual(RidgeHead):
    """rR is missing in the tangent of the adjoint."""

    def r_backward(self, k, saved, adjoints, tangents, rdw, rdb):
        rdX, rdeta = super().r_backward(k, saved, adjoints, tangents, rdw, rdb)
        rR = -times_transposed(k, tangents.rX, saved.W)
        rR = rR - times_transposed(k, saved.system.x, tangents.rW)
        return rdX - times(k, rR, adjoints.U), rdeta


class FixedScale(RidgeHead):
    """rdalpha misses the part of the moving solution."""

    def r_backward(self, k, saved, adjoints, tangents, rdw, rdb):
        rdX, rdeta = super().r_backward(k, saved, adjoints, tangents, rdw, rdb)
        rdeta[:, 1] = inner_product(rdw, saved.W)
        return rdX, rdeta


@pytest.mark.parametrize(
    "wrong, quantity",
    [
        (TwiceTheSolution, "w, b"),
        (LinearStrength, "dX, deta"),
        (ConstantGram, "dX, deta"),
        (OneSidedGram, "rw, rb"),
        (FrozenResidual, "rdX, rdeta"),
        (FixedScale, "rdX, rdeta"),
    ],
)
def test_a_planted_error_is_refused(wrong, quantity):
    checks = list(head_checks(wrong(), solved_heads.ridge_weights, K))
    failed = [check for check in checks if not check.passed]
    assert {check.quantity for check in failed} >= {quantity}
    found = [check for check in failed if check.quantity == quantity]
    assert len(found) == len(SIZES) and all(check.error > 1e-3 for check in found)


def test_both_forms_of_the_solve_are_the_same_matrix():
    rng = np.random.default_rng(0)
    for N, F in SIZES:
        X, V = rng.standard_normal((2, N, F)), rng.standard_normal((2, 3, F))
        system = Ridge.of(K, X, 0.3)
        A = X.swapaxes(1, 2) @ X + 0.3 * np.eye(F)
        assert system.woodbury == (N < F)
        assert relative_error(system.solve(K, V), V @ np.linalg.inv(A)) < 1e-13
        assert relative_error(system.solve(K, V @ A), V) < 1e-13


def test_the_head_of_the_authors_code_is_this_one_with_another_strength():
    """They divide X, with a column of ones, and Y by sqrt(N), and take lambda = 50."""
    for N, F in SIZES:
        case = head_case(RidgeHead(intercept=True), N, F)
        eta = np.array([np.log(50 * N), 1.0, 0.0])
        w, b, _ = case.head.forward(K, case.X, case.Y, eta)
        X = np.concatenate([case.X, np.ones((2, N, 1))], axis=2) / np.sqrt(N)
        for t in range(2):
            theirs = solved_heads.ridge_weights(X[t], case.Y[t] / np.sqrt(N), 50)
            assert relative_error(np.vstack([w[t].T, b[t]]), theirs) < 1e-14


def test_a_small_strength_does_not_cancel_digits_of_the_solution():
    """W = B'X and R = lambda B: with lambda = 1e-10 the naive difference has none."""
    case = head_case(RidgeHead(), 5, 8)
    eta = np.array([np.log(1e-10), 1.0, 0.0])
    _, _, saved = RidgeHead().forward(K, case.X, case.Y, eta)
    for X, Y, W, R in zip(case.X, case.Y, saved.W, saved.R, strict=True):
        B = np.linalg.solve(X @ X.T + 1e-10 * np.eye(5), Y)
        assert relative_error(W, (X.T @ B).T) < 1e-12 and relative_error(R, 1e-10 * B) < 1e-12
