"""The steps of the program that iMAML's authors released."""

from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import cases, method_checks
from refmaml.oracles.tolerance import relative_error

METHOD = rm.ReleasedIMAML(inner_steps=4, cg_steps=100, cg_tol=1e-15)


@pytest.fixture
def problem():
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    return net, cases.start(net, rng), cases.tasks_for(net, rng)


def test_its_defaults_are_the_flags_of_the_program():
    assert rm.ReleasedIMAML() == rm.ReleasedIMAML(2.0, 16, 0.1, 5, 1e-10, 10.0, 1.0)


def test_its_direction_is_that_of_plain_loops_and_a_dense_solve(problem):
    check = method_checks.released_dense_check(METHOD, *problem)
    assert check.passed and check.error < 1e-10, check


@pytest.mark.parametrize(
    "wrong", [{"shift": 0.0}, {"damping": 0.0}, {"inner_steps": 3}, {"regularization": 2.5}]
)
def test_the_check_refuses_other_steps(problem, wrong):
    class Planted(rm.ReleasedIMAML):
        def task_gradients(self, *arguments):
            return replace(METHOD, **wrong).task_gradients(*arguments)

    planted = Planted(inner_steps=4, cg_steps=100, cg_tol=1e-15)
    assert not method_checks.released_dense_check(planted, *problem).passed


def test_held_out_tasks_are_judged_before_the_pull(problem):
    net, theta, batch = problem
    phi = METHOD.adapt(net, theta, batch.x_support, batch.y_support)
    plain = rm.MAML(0.1, 4).adapt(net, theta, batch.x_support, batch.y_support)
    assert np.array_equal(phi, plain)
    traced = METHOD.meta_gradient(net, theta, batch, trace=True).trace["phi"][-1]
    assert relative_error(traced, 0.8 * phi + 0.2 * theta) < 1e-15


def test_it_is_close_to_half_of_a_first_order_gradient_where_curvature_is_small(problem):
    net, theta, batch = problem
    out = METHOD.meta_gradient(net, 0.01 * theta, batch, trace=True)
    half = out.trace["query_grad"][0].mean(axis=0) / 2
    assert np.linalg.norm(out.grad - half) < 0.1 * np.linalg.norm(half)


def test_it_says_that_the_papers_inner_problem_is_not_solved(problem):
    report = METHOD.meta_gradient(*problem).report
    assert (report["cg_status"] == "converged").all()
    assert (report["inner_status"] == "maxiter").all()
    assert (report["status"] == "inner_not_converged").all()


@pytest.mark.parametrize(
    "name, value", [("regularization", 0), ("shift", -1.0), ("damping", np.nan), ("cg_steps", 0)]
)
def test_a_bad_field_is_refused(name, value):
    with pytest.raises(rm.ArgumentError, match=f"^{name}: expected "):
        rm.ReleasedIMAML(**{name: value})


def test_an_overflow_of_its_solve_names_the_task():
    net, x = rm.mlp((1, 1)), np.ones((2, 3, 1), np.float32)
    x[1] *= 1e6
    batch = rm.Batch(x, 0 * x, x, 0 * x)
    with pytest.raises(rm.NonFiniteError, match="the program's system for u") as caught:
        rm.ReleasedIMAML(2.0, 1, 1e-20).meta_gradient(net, np.full(2, 1e10, np.float32), batch)
    assert caught.value.task == 1


def test_the_doctor_and_hypergradients_refuse_it(problem):
    with pytest.raises(rm.ArgumentError, match="^hyper: expected a method that differentiates"):
        METHOD.meta_gradient(*problem, hyper=True)
    with pytest.raises(rm.ArgumentError, match="^method: expected a method of refmaml"):
        rm.check_meta_gradient(lambda *a: None, METHOD)
