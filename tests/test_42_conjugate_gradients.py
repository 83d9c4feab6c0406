"""Conjugate gradients: LAPACK, statuses, and independence of the systems of a batch."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods.conjugate_gradients import REFERENCE, STATUSES, iterate
from refmaml.oracles.tolerance import relative_error

RNG = np.random.default_rng(0)


def spd(condition, T=3, P=12):
    """Symmetric positive definite matrices with eigenvalues from 1/condition to 1."""
    Q = np.linalg.qr(RNG.standard_normal((T, P, P)))[0]
    return Q * np.geomspace(1 / condition, 1, P) @ Q.swapaxes(1, 2)


def times(A):
    return lambda v: np.einsum("tij,tj->ti", A, v)


@pytest.mark.parametrize("condition", [1e0, 1e2, 1e4])
def test_cg_agrees_with_lapack(condition):
    A, b = spd(condition), RNG.standard_normal((3, 12))
    out = rm.conjugate_gradients(times(A), b, maxiter=200, tol=1e-13)
    assert (out.status == "converged").all()
    # The error of a solution is at most its relative residual times the condition
    # number.
    assert relative_error(
        out.x, np.linalg.solve(A, b[..., None])[..., 0]
    ) <= 4 * 1e-13 * condition * np.sqrt(12)
    assert len(out.residuals) == out.iterations.max() + 1


def test_cg_solves_n_distinct_eigenvalues_in_n_iterations():
    A = np.diag([1.0, 1, 2, 2, 5])[None]
    out = rm.conjugate_gradients(times(A), np.ones((1, 5)), maxiter=10, tol=1e-12)
    assert out.iterations.tolist() == [3] and out.status.tolist() == ["converged"]


def test_all_statuses_of_cg_can_occur_in_one_batch():
    A = np.stack(
        [
            np.eye(3),
            np.diag([1.0, 2, 3]),
            np.diag([1.0, 1, -1]),
            np.diag([1.0, -1, 0]),
            np.eye(3),
            np.eye(3),
        ]
    )
    b = np.array([[1.0, 2, 3], [1, 1, 1], [0, 0, 1], [1, 1, 0], [np.nan, 0, 0], [0, 0, 0]])
    out = rm.conjugate_gradients(times(A), b, maxiter=1, tol=1e-12)
    assert out.status.tolist() == [
        "converged",
        "maxiter",
        "negative_curvature",
        "breakdown",
        "nonfinite",
        "converged",
    ]
    assert np.isfinite(out.x).all() and (out.x[2:] == 0).all()


@pytest.mark.parametrize("b", [1e30, np.inf])
def test_what_overflows_before_the_first_iteration_is_no_solution(b):
    out = rm.conjugate_gradients(
        times(np.stack([np.eye(3)] * 2).astype(np.float32)),
        np.float32([[b, b, b], [1, 1, 1]]),
        maxiter=5,
    )
    assert out.status.tolist() == ["nonfinite", "converged"] and (out.x[0] == 0).all()


@pytest.mark.parametrize("theta, size", [(1e18, 4), (1e10, 1e6)])
def test_a_solve_that_overflows_stops_with_its_task(theta, size):
    """The loss is finite; the square of the gradient, or of a product, overflows."""
    net, rng = rm.mlp((1, 1)), np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 1)).astype(np.float32)
    x[1:] *= size  # task 0 is well
    batch = rm.Batch(x, 0 * x, x, 0 * x)
    with pytest.raises(rm.NonFiniteError, match="conjugate gradients.*overflow") as caught:
        rm.IMAML(2.0, 1, 1e-20).meta_gradient(net, np.full(2, theta, np.float32), batch)
    assert caught.value.task == 1


def test_a_finished_system_does_not_change_while_others_continue():
    A = np.stack([np.eye(6), np.diag(np.arange(1.0, 7))])
    b = RNG.standard_normal((2, 6))
    together = rm.conjugate_gradients(times(A), b, maxiter=20, tol=1e-12)
    alone = rm.conjugate_gradients(times(A[:1]), b[:1], maxiter=20, tol=1e-12)
    assert np.array_equal(together.x[0], alone.x[0]) and together.iterations.tolist()[0] == 1


@pytest.mark.parametrize("P", [100, 10_000])
def test_a_system_is_solved_to_the_same_bits_however_many_there_are(P):
    rng = np.random.default_rng(0)
    A, b = (
        rng.uniform(1, 2, (3, P)).astype(np.float32),
        rng.standard_normal((3, P)).astype(np.float32),
    )
    together = rm.conjugate_gradients(lambda v: A * v, b, maxiter=3)
    for t in range(3):
        alone = rm.conjugate_gradients(lambda v, t=t: A[t : t + 1] * v, b[t : t + 1], maxiter=3)
        assert np.array_equal(alone.x[0], together.x[t]) and np.array_equal(
            alone.residuals[:, 0], together.residuals[:, t]
        )


def test_iterations_after_the_end_of_all_systems_change_no_bit():
    """A CUDA graph runs all iterations, also after every system has ended."""
    A = np.stack(
        [
            np.eye(3),
            np.diag([1.0, 2, 2]),
            np.diag([1.0, 1, -1]),
            np.diag([1.0, -1, 0]),
            np.eye(3),
            np.eye(3),
            np.eye(3) * 1e300,
        ]
    )
    b = np.array(
        [[1.0, 2, 3], [1, 1, 1], [0, 0, 1], [1, 1, 0], [np.nan, 0, 0], [0, 0, 0], [1e10, 0, 0]]
    )
    looked = rm.conjugate_gradients(times(A), b, maxiter=9, tol=1e-12)
    blind = iterate(times(A), b, 9, 1e-12, REFERENCE, early_stop=False)
    assert len(looked.residuals) == 3 and len(blind.residuals) == 10
    assert np.array_equal(looked.x, blind.x) and np.array_equal(looked.iterations, blind.iterations)
    assert STATUSES[blind.status].tolist() == looked.status.tolist()
    finite = looked.status != "nonfinite"
    assert finite.sum() == 5 and np.array_equal(
        looked.residuals[-1, finite], blind.residuals[-1, finite]
    )


def test_no_iterations_give_zero_and_the_status_maxiter():
    out = rm.conjugate_gradients(times(np.eye(2)[None]), np.ones((1, 2)), maxiter=0)
    assert out.status.tolist() == ["maxiter"] and (out.x == 0).all()
