"""LLAMA: log det of the curvature by third derivatives and by Kronecker factors."""

from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.methods import lanczos, laplace
from refmaml.methods.llama import LLAMA
from refmaml.oracles import cases, dense, laplace_checks
from refmaml.oracles.laplace_checks import nets, start
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
NETS = nets()
PROMISE = 1e-12  # what the project promises of every derivative in float64
HESSIAN = LLAMA(0.3, 3, weight=0.5, precision=3.0, curvature="hessian")
KRONECKER = replace(HESSIAN, precision=0.25, curvature="kronecker")


# ---- what is right -------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_of_the_ladder_passes_within_the_promise():
    rows = list(laplace_checks.laplace_checks(K))
    assert len(rows) > 35 and all(check.passed for check in rows), rows
    exact = [check for check in rows if check.oracle != "finite differences"]
    assert max(check.error for check in exact) < PROMISE


def test_values_of_the_meta_objective_agree_to_ten_digits():
    net = NETS["linear layers"]
    phi, batch = start(net)
    for method in (HESSIAN, KRONECKER):
        check = laplace_checks.richardson_check(method, net, phi[0], batch)
        assert check.passed and check.error < 1e-10, check


def test_probes_in_number_tend_to_the_hessian_s_sum():
    """Hutchinson's estimate of value and gradient: no bias that many probes show."""
    net = NETS["linear layers"]
    at = laplace_checks.at_point(net, *start(net))
    exact = laplace.by_basis(at, 3.0)
    n, many = len(at.places), 500
    found = laplace.by_probes(at, 3.0, many, n, seed=0)
    assert relative_error(found.value, exact.value) < 0.02
    assert relative_error(found.gradient, exact.gradient) < 0.3
    assert found.report["laplace_residual"].max() < 1e-12


def test_few_products_of_lanczos_say_how_good_they_are():
    net = NETS["linear layers"]
    phi, batch = start(net)
    at = laplace_checks.at_point(net, phi, batch)
    residuals = [
        laplace.by_probes(at, 3.0, 2, steps, 0).report["laplace_residual"].max()
        for steps in (1, 3, 6, 12)
    ]
    assert residuals == sorted(residuals, reverse=True) and residuals[-1] < 1e-6 < residuals[0]
    u = lanczos.lanczos(lambda v: at.products(np.zeros(2, int), v), np.ones((2, 27)), 3)
    solved, residual = u.solve(3.0)
    H = dense.hessian(net, phi[0], batch.x_support[:1], batch.y_support[:1])
    wanted = np.linalg.norm(solved @ (H + 3 * np.eye(27)) - 1, axis=1)
    assert relative_error(residual, wanted) < 1e-12


def test_weight_zero_is_maml_bit_for_bit():
    net = NETS["convolutions"]
    phi, batch = start(net)
    maml = rm.MAML(0.3, 3).meta_gradient(net, phi[0], batch)
    out = replace(KRONECKER, weight=0.0).meta_gradient(net, phi[0], batch)
    assert np.array_equal(out.grad, maml.grad) and out.loss == maml.loss


def test_loss_has_the_term_and_the_report_its_value():
    net = NETS["linear layers"]
    phi, batch = start(net)
    maml = rm.MAML(0.3, 3).meta_gradient(net, phi[0], batch)
    for method in (HESSIAN, KRONECKER, replace(HESSIAN, curvature="probes")):
        out = method.meta_gradient(net, phi[0], batch, trace=True)
        term = out.task_losses - maml.task_losses
        assert relative_error(term, 0.5 * out.report["log_determinant"]) < 1e-13
        assert out.trace["laplace_grad"][0].shape == (2, net.num_params)


@pytest.mark.parametrize(
    "curvature", ["kronecker", "probes", pytest.param("hessian", marks=pytest.mark.slow)]
)
def test_chunks_and_recomputed_passes_change_no_bit(curvature):
    net = NETS["linear layers"]
    phi, _ = start(net)
    batch = cases.tasks_for(net, np.random.default_rng(3), tasks=5)
    method = replace(HESSIAN, precision=8.0, curvature=curvature)
    whole = method.meta_gradient(net, phi[0], batch, chunk=5)
    assert (whole.grad != 0).all()
    for other, chunk in ((method, 1), (method, 2), (replace(method, recompute=True), 5)):
        found = other.meta_gradient(net, phi[0], batch, chunk=chunk)
        assert np.array_equal(found.grad, whole.grad) and found.loss == whole.loss


def test_hypergradients_of_the_step_size_have_the_term_too():
    net = NETS["linear layers"]
    phi, batch = start(net)

    def loss(alpha):
        return replace(HESSIAN, inner_lr=alpha).meta_gradient(net, phi[0], batch).loss

    found = HESSIAN.meta_gradient(net, phi[0], batch, hyper=True).hyper["inner_lr"]
    h = 1e-3
    slope = [(loss(0.3 + a) - loss(0.3 - a)) / (2 * a) for a in (h, 2 * h)]
    assert relative_error(found, (4 * slope[0] - slope[1]) / 3) < 1e-8


def test_on_quadratics_the_term_is_a_constant():
    """H = A: log det(A + tau I), with no derivative."""
    net, rng = rm.Quadratic(3), np.random.default_rng(0)
    root = rng.standard_normal((2, 3, 3))
    A, c = root @ root.swapaxes(1, 2), rng.standard_normal((2, 3))
    batch = rm.Batch(A, c, A, c)
    out = HESSIAN.meta_gradient(net, np.ones(3), batch, trace=True)
    truth = np.linalg.slogdet(A + 3 * np.eye(3))[1]
    assert relative_error(out.report["log_determinant"], truth) < 1e-14
    assert (out.trace["laplace_grad"][0] == 0).all()


@pytest.mark.slow
def test_float32_and_the_cpu_kernels_agree_with_the_reference():
    net = NETS["convolutions"]
    phi, batch = start(net)
    for method in (KRONECKER, replace(HESSIAN, precision=40.0, inner_lr=0.01)):
        exact = method.meta_gradient(net, phi[0], batch).grad
        cpu = method.meta_gradient(net.with_kernels("cpu"), phi[0], batch).grad
        assert relative_error(cpu, exact) < PROMISE
        single = method.meta_gradient(net, phi[0].astype(np.float32), batch).grad
        assert single.dtype == np.float32 and relative_error(single, exact) < 1e-4


# ---- errors --------------------------------------------------------------------------


def test_a_hessian_that_is_not_positive_definite_is_named():
    """Public code clamps its determinant, which leaves the term without a gradient."""
    net = NETS["linear layers"]
    phi, batch = start(net)
    for curvature in ("hessian", "probes"):
        method = replace(HESSIAN, precision=1e-3, curvature=curvature, lanczos_steps=27)
        with pytest.raises(
            rm.NonFiniteError,
            match=r"^support set: log det\(H \+ tau I\): expected positive eigenvalues, got -",
        ):
            method.meta_gradient(net, phi[0], batch)


def test_the_task_of_a_later_chunk_is_counted_from_the_first():
    net = rm.Quadratic(1)
    A = np.array([1.0, 1.0, -5.0])[:, None, None]
    batch = rm.Batch(A, np.zeros((3, 1)), A, np.zeros((3, 1)))
    with pytest.raises(rm.NonFiniteError, match="in task 2$"):
        HESSIAN.meta_gradient(net, np.ones(1), batch, chunk=1)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("weight", -1.0, "weight: expected a finite number >= 0"),
        ("precision", 0.0, "precision: expected a finite number > 0"),
        ("curvature", "fisher", "curvature: expected one of kronecker, hessian, probes"),
        ("probes", 0, "probes: expected an integer >= 1"),
        ("lanczos_steps", 0, "lanczos_steps: expected an integer >= 1"),
    ],
)
def test_a_bad_field_is_refused(field, value, message):
    with pytest.raises(rm.ArgumentError, match=f"^{message}"):
        LLAMA(0.1, **{field: value})


def test_kronecker_factors_need_a_layer_that_has_them():
    batch = rm.Batch(*[np.ones((1, 1, 1)), np.ones((1, 1))] * 2)
    with pytest.raises(rm.ArgumentError, match="^net: expected a linear or convolutional layer"):
        KRONECKER.meta_gradient(rm.Quadratic(1), np.ones(1), batch)


def test_an_underflow_of_the_determinant_is_no_trouble():
    """det(H + tau I) is 0 in float64 here; its logarithm and gradient are not."""
    net = rm.mlp((2, 30, 3), activation="tanh", loss=rm.CrossEntropy())
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    method = replace(KRONECKER, precision=1e-8)
    out = method.meta_gradient(net, theta, batch, trace=True)
    assert np.exp(out.report["log_determinant"]).max() == 0.0
    assert abs(out.trace["laplace_grad"][0]).max() > 1.0
