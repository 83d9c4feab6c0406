"""iMAML: dense oracles, the complex step through a converged solve, and its cost."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import cases, method_checks
from refmaml.oracles.tolerance import relative_error, tolerance


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


@pytest.mark.slow
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


def test_truncated_cg_has_the_status_maxiter():
    net, rng = cases.conv_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    out = rm.IMAML(0.5, 5, cg_steps=2).meta_gradient(net, theta, batch, trace=True)
    assert set(out.report["cg_status"]) <= {"maxiter", "negative_curvature"}
    assert (out.report["cg_residual"] > 1e-10).all() and len(out.trace["cg_residuals"]) <= 3


def passes_of(method):
    """(forward passes, Hessian-vector products) of one meta-gradient."""
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


# The inner solve runs a pass at each of phi_0 .. phi_16. The pass at phi* = phi_16 is
# used for the products too. There is one more pass on the query set.
INNER_SOLVE, QUERY = 17, 1


@pytest.mark.parametrize(
    "frozen,coupling", [((), 0), (("BatchNorm2d",), 1), (("0.weight", "4.*"), 1)]
)
@pytest.mark.parametrize("cg_steps", [1, 5])
def test_five_cg_iterations_cost_five_products_and_no_forward_pass_more(cg_steps, frozen, coupling):
    # If b does not adapt, dM/dtheta_b needs H_ba u_a after the solve: one more product,
    # whatever cg_steps is.
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


def test_float32_inputs_give_float32_results():
    net, rng = cases.conv_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    for solver in ("gradient_descent", "newton_cg"):
        method = rm.IMAML(2.0, 8, 0.1, solver=solver)
        single = method.meta_gradient(net, theta.astype(np.float32), batch).grad
        assert single.dtype == np.float32
        assert relative_error(single, method.meta_gradient(net, theta, batch).grad) <= tolerance(
            np.float32, method_checks.method_terms(method, net, batch)
        )


def test_newton_cg_runs_passes_at_arrays_of_its_own(monkeypatch):
    """Compiled kernels copy read-only arrays, such as theta broadcast over tasks."""
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


def test_the_search_of_a_task_depends_on_no_other_task_and_continues_as_long_as_needed(monkeypatch):
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
        )  # one step more or less changes the first digits


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

    results = [method.meta_gradient(net, theta, batch, chunk=chunk) for chunk in (1, len(batch))]
    assert (
        np.array_equal(results[0].grad, results[1].grad)
        and (results[0].report["inner_residual"] <= 1e-2).all()
    )
    assert np.array_equal(results[0].report["inner_residual"], results[1].report["inner_residual"])
    assert np.array_equal(
        np.concatenate([stopped(batch[t : t + 1]) for t in range(len(batch))]), stopped(batch)
    )


@pytest.mark.parametrize("name", ["inner_tol", "cg_tol"])
@pytest.mark.parametrize("value", [-1e-3, np.nan, "1e-3"])
def test_a_tolerance_is_a_number_of_at_least_0(name, value):
    with pytest.raises(rm.ArgumentError, match=f"{name}: expected a finite number >= 0, got"):
        rm.IMAML(2.0, **{name: value})
