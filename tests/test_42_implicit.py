"""iMAML and its conjugate gradients: dense oracles, the complex step through a converged solve, and honest statuses."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods.conjugate_gradients import REFERENCE, STATUSES, iterate
from refmaml.oracles import cases, method_checks
from refmaml.oracles.tolerance import relative_error, tolerance

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
    # The error of a solution is its relative residual times the condition number at most.
    assert relative_error(
        out.x, np.linalg.solve(A, b[..., None])[..., 0]
    ) <= 4 * 1e-13 * condition * np.sqrt(12)
    assert len(out.residuals) == out.iterations.max() + 1


def test_cg_solves_n_distinct_eigenvalues_in_n_iterations():
    A = np.diag([1.0, 1, 2, 2, 5])[None]
    out = rm.conjugate_gradients(times(A), np.ones((1, 5)), maxiter=10, tol=1e-12)
    assert out.iterations.tolist() == [3] and out.status.tolist() == ["converged"]


def test_every_status_of_cg_is_told_apart_in_one_batch():
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
    """The loss is a finite number still; the square of the gradient, or of a product with a direction, is none in float32."""
    net, rng = rm.mlp((1, 1)), np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 1)).astype(np.float32)
    x[1:] *= size  # task 0 is well
    batch = rm.Batch(x, 0 * x, x, 0 * x)
    with pytest.raises(rm.NonFiniteError, match="conjugate gradients.*overflow") as caught:
        rm.IMAML(2.0, 1, 1e-20).meta_gradient(net, np.full(2, theta, np.float32), batch)
    assert caught.value.task == 1


def test_a_finished_system_stands_still_while_others_go_on():
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


def test_iterations_that_nobody_looks_at_change_no_bit():
    """What a CUDA graph records: all of them, though each system has ended, in whatever way, before."""
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


def test_no_iterations_give_zero_and_say_so():
    out = rm.conjugate_gradients(times(np.eye(2)[None]), np.ones((1, 2)), maxiter=0)
    assert out.status.tolist() == ["maxiter"] and (out.x == 0).all()


@pytest.mark.parametrize(
    "solver,steps,frozen",
    [("newton_cg", 40, ()), ("newton_cg", 40, ("BatchNorm2d",)), ("gradient_descent", 1000, ())],
)
def test_imaml_agrees_with_lapack_and_with_the_complex_step_through_a_converged_solve(
    solver, steps, frozen
):
    method = rm.IMAML(
        2.0, steps, 0.2, solver=solver, inner_tol=1e-14, cg_steps=100, cg_tol=1e-15, frozen=frozen
    )
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    out = method.meta_gradient(net, theta, batch)
    assert (
        out.report["inner_residual"].max() < 1e-13
        and (out.report["cg_status"] == "converged").all()
    )
    for check in (
        method_checks.imaml_dense_check(method, net, theta, batch),
        method_checks.meta_gradient_check(method, net, theta, batch),
    ):
        assert check.passed and check.error < 1e-10, check


@pytest.mark.parametrize("wrong", ["lambda / 2", "sign", "no lambda", "first order"])
def test_the_dense_check_refuses_wrong_implicit_gradients(wrong):
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    exact = rm.IMAML(2.0, 40, solver="newton_cg", cg_steps=100, cg_tol=1e-15)

    class Planted(rm.IMAML):
        def task_gradients(self, net, theta, batch, trace):
            out = super().task_gradients(net, theta, batch, True)
            phi, q = out.trace["phi"][-1], out.trace["query_grad"][0]
            primal = net.primal(phi, batch.x_support, batch.y_support)
            factor = {"lambda / 2": 1.0, "sign": -2.0, "no lambda": 2.0}.get(wrong)
            u = (
                q
                if factor is None
                else rm.conjugate_gradients(
                    lambda v: v + net.hvp(primal, v) / factor, q, 100, 1e-15
                ).x
            )
            return out.__class__(
                out.loss, out.accuracy, u / 2 if wrong == "no lambda" else u, {}, out.report
            )

    planted = Planted(2.0, 40, solver="newton_cg", cg_steps=100, cg_tol=1e-15)
    assert method_checks.imaml_dense_check(exact, net, theta, batch).passed
    assert method_checks.imaml_dense_check(planted, net, theta, batch).error > 1e-2


def test_truncated_cg_says_that_it_is():
    net, rng = cases.conv_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    out = rm.IMAML(0.5, 5, cg_steps=2).meta_gradient(net, theta, batch, trace=True)
    assert set(out.report["cg_status"]) <= {"maxiter", "negative_curvature"}
    assert (out.report["cg_residual"] > 1e-10).all() and len(out.trace["cg_residuals"]) <= 3


def passes_of(method):
    """(forward passes, Hessian-vector products) that one meta-gradient of a chunk of tasks runs."""
    calls = {"forward": 0, "hvp": 0}

    class Counted(rm.Sequential):
        def forward(self, *args, **kwargs):
            calls["forward"] += 1
            return super().forward(*args, **kwargs)

        def hvp(self, *args):
            calls["hvp"] += 1
            return super().hvp(*args)

    plain, rng = cases.conv_net(), np.random.default_rng(0)
    net = Counted(plain.layers, plain.loss_function, plain.input_shape)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    method.meta_gradient(net, theta, batch)
    return tuple(calls.values())


# The inner solve runs a pass at each of phi_0 .. phi_16; the pass at phi* = phi_16 serves the products too. One more on the query set.
INNER_SOLVE, QUERY = 17, 1


@pytest.mark.parametrize(
    "frozen,coupling", [((), 0), (("BatchNorm2d",), 1), (("0.weight", "4.*"), 1)]
)
@pytest.mark.parametrize("cg_steps", [1, 5])
def test_five_cg_iterations_cost_five_products_and_no_forward_pass_more(cg_steps, frozen, coupling):
    # Where b does not adapt, dM/dtheta_b needs H_ba u_a once the solve is done: one product more, whatever cg_steps is.
    method = rm.IMAML(2.0, 16, cg_steps=cg_steps, cg_tol=0.0, frozen=frozen)
    assert passes_of(method) == (INNER_SOLVE + QUERY, cg_steps + coupling)


def test_the_count_notices_a_solver_that_runs_the_pass_at_the_solution_again():
    class Wasteful(rm.IMAML):
        def solve(self, net, theta, x, y):
            phi, _, residual = super().solve(net, theta, x, y)
            return phi, net.primal(phi, x, y), residual

    assert passes_of(Wasteful(2.0, 16, cg_steps=5, cg_tol=0.0)) == (INNER_SOLVE + QUERY + 1, 5)


def test_the_hessian_free_solver_gets_further_in_five_steps_than_gradient_descent():
    net, rng = (
        cases.smooth_net(),
        np.random.default_rng(0),
    )  # no kinks: Newton's method needs second derivatives
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    residual = {
        solver: rm.IMAML(2.0, 5, 0.1, solver=solver)
        .meta_gradient(net, theta, batch)
        .report["inner_residual"]
        .max()
        for solver in ("gradient_descent", "newton_cg")
    }
    assert residual["newton_cg"] < 0.01 * residual["gradient_descent"]


def test_float32_runs_in_float32_to_the_end():
    net, rng = cases.conv_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    for solver in ("gradient_descent", "newton_cg"):
        method = rm.IMAML(2.0, 8, 0.1, solver=solver)
        single = method.meta_gradient(net, theta.astype(np.float32), batch).grad
        assert single.dtype == np.float32
        assert relative_error(single, method.meta_gradient(net, theta, batch).grad) <= tolerance(
            np.float32, method_checks.method_terms(method, net, batch)
        )


def test_newton_cg_asks_for_passes_at_arrays_of_its_own(monkeypatch):
    """Compiled kernels copy a read-only array every time, which is what theta broadcast over tasks would be."""
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    theta, batch, primal = cases.start(net, rng), cases.tasks_for(net, rng), net.primal
    written = []
    monkeypatch.setattr(
        net,
        "primal",
        lambda w, *rest, **options: (
            written.append(w.flags.writeable) or primal(w, *rest, **options)
        ),
    )
    rm.IMAML(2.0, inner_steps=1, solver="newton_cg", cg_steps=2).meta_gradient(net, theta, batch)
    assert len(written) == 3 and all(written)


def test_the_search_of_a_task_does_not_depend_on_the_others_and_goes_on_for_those_that_need_it(
    monkeypatch,
):
    net, rng = cases.conv_net(), np.random.default_rng(1)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=4)
    method, loss, sizes = rm.IMAML(0.5, inner_steps=3, solver="newton_cg", cg_steps=3), net.loss, []
    monkeypatch.setattr(net, "loss", lambda w, *rest: sizes.append(len(w)) or loss(w, *rest))
    together = method.adapted(net, theta, batch.x_support, batch.y_support)
    assert 0 < min(sizes) < len(together)
    for t in range(len(together)):
        alone = method.adapted(net, theta, batch.x_support[t : t + 1], batch.y_support[t : t + 1])
        assert (
            relative_error(alone, together[t : t + 1]) <= 1e-12
        )  # a step more or less would be seen in the first digits


@pytest.mark.parametrize(
    "method",
    [
        rm.IMAML(2.0, 60, 0.05, inner_tol=1e-2),
        rm.IMAML(2.0, 40, solver="newton_cg", inner_tol=5e-3, cg_steps=2),
    ],
)
def test_where_a_task_stops_early_does_not_depend_on_the_others(method):
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=4)
    scale = np.linspace(0.1, 1, len(batch))[
        :, None, None, None, None
    ]  # tasks that take more steps and fewer
    batch = rm.Batch(scale * batch.x_support, batch.y_support, batch.x_query, batch.y_query)

    def stopped(tasks):
        return net.loss(
            method.adapt(net, theta, tasks.x_support, tasks.y_support),
            tasks.x_support,
            tasks.y_support,
        )

    some = [method.meta_gradient(net, theta, batch, chunk=chunk) for chunk in (1, len(batch))]
    assert (
        np.array_equal(some[0].grad, some[1].grad)
        and (some[0].report["inner_residual"] <= 1e-2).all()
    )
    assert np.array_equal(some[0].report["inner_residual"], some[1].report["inner_residual"])
    assert np.array_equal(
        np.concatenate([stopped(batch[t : t + 1]) for t in range(len(batch))]), stopped(batch)
    )


@pytest.mark.parametrize("name", ["inner_tol", "cg_tol"])
@pytest.mark.parametrize("value", [-1e-3, np.nan, "1e-3"])
def test_a_tolerance_is_a_number_of_at_least_0(name, value):
    with pytest.raises(rm.ArgumentError, match=f"{name}: expected a finite number >= 0, got"):
        rm.IMAML(2.0, **{name: value})
