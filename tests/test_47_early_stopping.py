"""Early stopping as a most probable point: its prior, posterior and evidence."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import early_stopping_checks as checks
from refmaml.oracles.early_stopping import early_stopping
from refmaml.oracles.tolerance import relative_error


def failed():
    return {check.quantity for check in checks.early_stopping_checks() if not check.passed}


def test_every_row_passes_within_the_promise():
    rows = list(checks.early_stopping_checks())
    assert len(rows) == 10 and all(check.passed for check in rows), rows
    assert max(check.error for check in rows) < 1e-12


def wrong(change):
    """early_stopping with some of its results changed."""
    return lambda X, y, theta, alpha, K: change(early_stopping(X, y, theta, alpha, K), X, alpha, K)


PLANTED = {
    "a prior without the flat directions": (
        lambda found, X, alpha, K: found._replace(
            prior=found.prior + 1e-3 * (np.eye(len(found.prior)) - np.linalg.pinv(X) @ X)
        ),
        {"posterior covariance"},
    ),
    "the posterior of one step more": (
        lambda found, X, alpha, K: found._replace(
            covariance=found.covariance
            + alpha * np.linalg.matrix_power(np.eye(X.shape[1]) - alpha * X.T @ X, K)
        ),
        {"posterior covariance"},
    ),
    "all of the log det": (
        lambda found, X, alpha, K: found._replace(
            log_evidence=found.log_evidence
            + K / 2 * np.linalg.slogdet(np.eye(len(X)) - alpha * X @ X.T)[1]
        ),
        {"log evidence"},
    ),
    "the residual at theta": (
        lambda found, X, alpha, K: found._replace(gradient=2 * found.gradient),
        {"its gradient"},
    ),
}


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_refused(monkeypatch, error):
    change, wanted = PLANTED[error]
    monkeypatch.setattr(checks, "early_stopping", wrong(change))
    assert wanted <= failed()


def test_the_prior_is_wide_where_the_data_says_nothing():
    """K alpha in the flat directions: the posterior keeps all of it there."""
    X, alpha, K = np.array([[2.0, 0.0]]), 0.1, 3
    found = early_stopping(X, np.ones(1), np.zeros(2), alpha, K)
    assert relative_error(found.prior[1, 1], K * alpha) < 1e-15
    assert relative_error(found.covariance[1, 1], K * alpha) < 1e-15
    assert found.covariance[0, 0] < 0.25 < found.prior[0, 0]  # 1/h alone would be 0.25


def test_another_task_has_another_prior():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2, 6, 3)), np.ones(6)
    a, b = (early_stopping(x, y, np.zeros(3), 0.05, 4).prior for x in X)
    assert relative_error(a, b) > 0.1


@pytest.mark.parametrize("length, K, exists", [(0.9, 3, 1), (1.5, 2, 1), (1.5, 3, 0), (2.5, 2, 0)])
def test_some_step_sizes_have_no_prior(length, K, exists):
    X = np.eye(2)  # h = 1
    if exists:
        assert (np.linalg.eigvalsh(early_stopping(X, X[0], X[1], length, K).prior) > 0).all()
    else:
        with pytest.raises(rm.ArgumentError, match="^alpha: expected alpha h < 1"):
            early_stopping(X, X[0], X[1], length, K)
