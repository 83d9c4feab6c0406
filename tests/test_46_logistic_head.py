"""LR-D2: logistic regression as the head, at its optimum and through Newton's steps."""

from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.methods.logistic_head import LogisticHead
from refmaml.methods.logistic_iterations import LogisticIterations
from refmaml.methods.symmetric_solves import times, times_transposed, transposed_times
from refmaml.oracles import cases, method_checks, solved_heads
from refmaml.oracles.solved_head_checks import (
    ETA,
    SIZES,
    gradient_by_steps,
    head_case,
    head_checks,
    hvp_check,
)
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
PROMISE = 1e-12  # what the project promises of every derivative in float64
METHOD = rm.LRD2(0.75, 1.75, 0.25)
HEADS = [
    (LogisticHead(), solved_heads.logistic_weights),
    (LogisticHead(intercept=True), solved_heads.logistic_weights),
    *(
        (LogisticIterations(newton_steps=J), solved_heads.iterated_weights(J))
        for J in (1, 2, 3, 10)
    ),
]


def name_of(value):
    return f"{type(value).__name__}-{getattr(value, 'newton_steps', '')}"


@pytest.mark.parametrize("head, weights", HEADS, ids=name_of)
def test_the_passes_agree_with_lapack_and_the_complex_step(head, weights):
    checks = list(head_checks(head, weights, K))
    passes = 2 if isinstance(head, LogisticIterations) else 4
    assert len(checks) == passes * len(SIZES)
    for check in checks:
        assert check.passed and check.error < PROMISE, check


# ---- planted errors ------------------------------------------------------------------


class NoCurvature(LogisticHead):
    """The second term of dX without S, as if the problem were ridge regression."""

    def backward(self, k, saved, dw, db):
        dX, deta, kept = super().backward(k, saved, dw, db)
        return dX + times(k, (saved.hessians.S - 1) * kept.P, saved.W), deta, kept


class ConstantHessian(LogisticHead):
    """rS is missing: third derivatives of the loss."""

    def r_backward(self, k, saved, adjoints, tangents, rdw, rdb):
        return super().r_backward(k, saved, adjoints, tangents._replace(h=0 * tangents.h), rdw, rdb)


class NoResidual(LogisticHead):
    """dX without R U: the features count only through the outputs."""

    def backward(self, k, saved, dw, db):
        dX, deta, kept = super().backward(k, saved, dw, db)
        return dX - times(k, saved.R, kept.U), deta, kept


class StoppedEarly(LogisticHead):
    """Two steps, and the derivative of the optimum."""

    def forward(self, k, X, Y, eta):
        return LogisticHead.forward(replace(self, newton_steps=2), k, X, Y, eta)


class NewtonWithAConstantHessian(LogisticIterations):
    """Each step's H counts as a constant."""

    def backward(self, k, saved, dw, db):
        *path, end = saved
        lam, dX, dstrength = end.alpha * dw, 0 * end.X, 0 * db[:, 0]
        for here in reversed(path):
            X, S = here.X, here.hessians.S
            U = here.hessians.solve(k, lam)
            dZ = -S * times_transposed(k, X, U)
            dX = dX + times(k, here.R, U) + times(k, dZ, here.W)
            dstrength = dstrength - (U * here.W).sum(axis=(1, 2))
            lam = lam + transposed_times(k, dZ, X) - here.strength * U
        _, deta, _ = super().backward(k, saved, dw, db)
        deta[:, 0] = end.strength * dstrength
        return dX, deta, None


@pytest.mark.parametrize(
    "wrong, weights, quantity",
    [
        (NoCurvature(), solved_heads.logistic_weights, "dX, deta"),
        (NoResidual(), solved_heads.logistic_weights, "dX, deta"),
        (ConstantHessian(), solved_heads.logistic_weights, "rdX, rdeta"),
        (StoppedEarly(), solved_heads.logistic_weights, "w, b"),
        (StoppedEarly(), solved_heads.iterated_weights(2), "dX, deta"),
        (NewtonWithAConstantHessian(newton_steps=2), solved_heads.iterated_weights(2), "dX, deta"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, LogisticHead) else "",
)
def test_a_planted_error_is_refused(wrong, weights, quantity):
    failed = [check for check in head_checks(wrong, weights, K) if not check.passed]
    found = [check for check in failed if check.quantity == quantity]
    assert len(found) == len(SIZES) and all(check.error > 1e-3 for check in found), failed


# ---- at the optimum and through the steps --------------------------------------------


def test_the_derivative_through_the_steps_tends_to_that_at_the_optimum():
    """Quadratically: the digits of the difference double with each step."""
    case = head_case(LogisticHead(newton_steps=30), 5, 8)
    _, _, saved = case.head.forward(K, case.X, case.Y, ETA)
    exact, *_ = case.head.backward(K, saved, case.dw, case.db)
    errors = []
    for J in range(2, 7):
        head = LogisticIterations(newton_steps=J)
        _, _, path = head.forward(K, case.X, case.Y, ETA)
        errors.append(relative_error(head.backward(K, path, case.dw, case.db)[0], exact))
    assert 1e-2 < errors[0] < 1e-1 and errors[-1] < 1e-14
    assert all(after < 4 * before**2 for before, after in zip(errors, errors[1:4], strict=False))


def test_the_formula_of_the_optimum_is_no_derivative_of_a_solver_stopped_early():
    """It errs as much as the solution does, in a direction of its own."""
    case = head_case(StoppedEarly(), 9, 4)
    _, _, saved = case.head.forward(K, case.X, case.Y, ETA)
    dX, *_ = case.head.backward(K, saved, case.dw, case.db)
    truth = gradient_by_steps(head_case(LogisticIterations(newton_steps=2), 9, 4), K)
    assert relative_error(dX.reshape(len(dX), -1), truth[:, :-3]) > 1e-2
    assert (case.head.report(K, saved)["inner_residual"] > 1e-2).all()


def test_the_solver_reaches_the_optimum_where_full_newton_steps_run_in_a_cycle():
    cycles = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, Y = 100 * rng.standard_normal((1, 6, 4)), np.eye(3)[rng.integers(0, 3, (1, 6))]
        residuals = []
        for head in (LogisticHead(newton_steps=20), LogisticIterations(newton_steps=60)):
            _, _, saved = head.forward(K, X, Y, np.array([0.0, 1.0, 0.0]))
            residuals.append(head.report(K, saved)["inner_residual"][0])
        assert residuals[0] < 1e-10
        W = [path.W for path in saved[-5:]]  # of full steps: the last five points
        cycles += residuals[1] > 1 and relative_error(W[4], W[2]) < 1e-12
    assert cycles > 0


def test_the_objective_never_rises():
    case = head_case(LogisticHead(), 9, 4)
    X, (ell, alpha, beta) = 30 * case.X, ETA
    values = []
    for steps in range(1, 12):
        head = LogisticHead(newton_steps=steps)
        _, _, saved = head.forward(K, X, case.Y, np.array([ell - 5, alpha, beta]))
        z = X @ saved.W.swapaxes(1, 2)
        loss = (np.logaddexp(0, z) - case.Y * z).sum(axis=1)
        values.append(loss + saved.strength / 2 * (saved.W**2).sum(axis=2))
    for before, after in zip(values, values[1:], strict=False):
        assert (after <= before * (1 + 1e-15)).all()


def test_the_gradient_at_the_optimum_is_zero_and_two_classes_mirror_each_other():
    rng = np.random.default_rng(0)
    X, labels = rng.standard_normal((2, 7, 3)), rng.integers(0, 2, (2, 7))
    w, _, saved = LogisticHead().forward(K, X, np.eye(2)[labels], np.array([-1.0, 1.0, 0.0]))
    assert (LogisticHead().report(K, saved)["inner_residual"] < 1e-14).all()
    assert relative_error(w[:, 0], -w[:, 1]) < 1e-14


# ---- the meta-gradient ---------------------------------------------------------------


def case_on(net, method, seed=0):
    rng = np.random.default_rng(seed)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    return method.init(net, theta), batch


def vector_net(features, bias=True):
    layers = [rm.Linear(5, features), rm.Tanh(), rm.Linear(features, 3, bias=bias)]
    return rm.Sequential(layers, rm.CrossEntropy(), (5,))


NETS = {
    "convolutions": cases.smooth_net(),
    "more features than examples": vector_net(9, bias=False),
    "fewer features than examples": vector_net(3),
}
METHODS = (METHOD, replace(METHOD, newton_steps=2, differentiate="iterations"))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.differentiate)
def test_a_meta_gradient_is_the_derivative_through_the_solve(name, method):
    net = NETS[name]
    check = method_checks.meta_gradient_check(method, net, *case_on(net, method))
    assert check.passed and check.error < PROMISE, check


@pytest.mark.parametrize("name", NETS)
def test_a_second_derivative_is_that_of_the_meta_gradient(name):
    check = hvp_check(METHOD, NETS[name], *case_on(NETS[name], METHOD), name)
    assert check.passed and check.error < PROMISE, check


def test_chunks_do_not_change_a_bit_and_the_report_has_a_row_for_each_task():
    net = NETS["convolutions"]
    meta, _ = case_on(net, METHOD)
    batch = cases.tasks_for(net, np.random.default_rng(3), tasks=7)
    whole = METHOD.meta_gradient(net, meta, batch, chunk=7)
    part = METHOD.meta_gradient(net, meta, batch, chunk=2)
    assert np.array_equal(part.grad, whole.grad)
    assert np.array_equal(part.report["inner_residual"], whole.report["inner_residual"])
    assert whole.report["inner_residual"].shape == (7,)
    assert (whole.report["inner_residual"] < 1e-13).all()


@pytest.mark.slow
def test_the_cpu_kernels_and_float32_agree_with_the_reference():
    net = NETS["convolutions"]
    meta, batch = case_on(net, METHOD)
    exact = METHOD.meta_gradient(net, meta, batch).grad
    cpu = METHOD.meta_gradient(net.with_kernels("cpu"), meta, batch).grad
    assert relative_error(cpu, exact) < 1e-12
    single = METHOD.meta_gradient(net, meta.astype(np.float32), batch)
    assert single.grad.dtype == np.float32 and relative_error(single.grad, exact) < 1e-4
    assert (single.report["inner_residual"] < 1e-4).all()


# ---- errors --------------------------------------------------------------------------


def test_a_regression_has_no_labels():
    net = rm.Sequential([rm.Linear(2, 3), rm.Linear(3, 1)], rm.MSE(), (2,))
    meta, batch = case_on(net, METHOD)
    with pytest.raises(rm.ArgumentError, match="^y: expected labels, for LogisticHead, got dtype"):
        METHOD.meta_gradient(net, meta, batch)


def test_an_intercept_needs_a_bias():
    net = NETS["more features than examples"]
    method = replace(METHOD, intercept=True)
    meta, batch = case_on(net, method)
    with pytest.raises(rm.ArgumentError, match="^net: expected a bias in its last layer"):
        method.meta_gradient(net, meta, batch)


@pytest.mark.parametrize(
    "fields, line",
    [
        ({"newton_steps": 0}, "^newton_steps: expected an integer >= 1"),
        ({"differentiate": "both"}, "^differentiate: expected one of optimum, iterations"),
        ({"strength": -1.0}, "^strength: expected a finite number > 0"),
        ({"intercept": 1}, "^intercept: expected True or False"),
    ],
)
def test_a_bad_field_is_refused(fields, line):
    with pytest.raises(rm.ArgumentError, match=line):
        rm.LRD2(**fields)


def test_steps_that_are_differentiated_have_no_second_derivative():
    method, net = METHODS[1], NETS["convolutions"]
    meta, batch = case_on(net, method)
    with pytest.raises(rm.ArgumentError, match="^head: expected LogisticHead, which has second"):
        method.hvp(net, meta, batch, meta)
