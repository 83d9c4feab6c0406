"""LLAMA: errors planted in third derivatives, Lanczos, the factors, the recursion."""

from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.methods import kronecker, lanczos, laplace
from refmaml.methods.llama import LLAMA
from refmaml.oracles import laplace_checks, method_checks
from refmaml.oracles.laplace_checks import nets, start
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
NETS = nets()
HESSIAN = LLAMA(0.3, 3, weight=0.5, precision=3.0, curvature="hessian")
KRONECKER = replace(HESSIAN, precision=0.25, curvature="kronecker")


def failed(checks, least=1e-6):
    """The quantities that fail, all of them by far."""
    bad = [check for check in checks if not check.passed]
    assert all(check.error > least for check in bad), bad
    return {check.quantity for check in bad}


def of_llama(method, name="linear layers"):
    """The check of a meta-gradient."""
    net = NETS[name]
    phi, batch = start(net)
    return method_checks.meta_gradient_check(method, net, phi[0], batch)


# ---- planted errors: the Hessian's term ----------------------------------------------


def planted(monkeypatch, owner, name, wrong):
    """Put wrong(right, *arguments) in the place of a function."""
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args: wrong(right, *args))


THIRD = {
    "half of it": lambda right, at, tasks, u, v: right(at, tasks, u, v) / 2,
    "along A e_i twice": lambda right, at, tasks, u, v: right(at, tasks, v, v),
    "only where it adapts": lambda right, at, tasks, u, v: at.spread(
        right(at, tasks, u, v)[:, at.places][:, ::-1]
    ),
}


@pytest.mark.parametrize("error", THIRD)
def test_a_planted_error_of_the_third_derivative_is_refused(monkeypatch, error):
    planted(monkeypatch, laplace.Curvature, "third", THIRD[error])
    rows = laplace_checks.hessian_checks("planted", NETS["linear layers"])
    assert failed(rows) == {"its gradient"}
    assert not of_llama(HESSIAN).passed


def test_a_term_without_tau_is_refused(monkeypatch):
    planted(
        monkeypatch,
        laplace,
        "by_basis",
        lambda right, at, tau: right(at, tau)._replace(gradient=right(at, tau + 1.0).gradient),
    )
    rows = laplace_checks.hessian_checks("planted", NETS["linear layers"])
    assert failed(rows) == {"its gradient"}


def test_a_gauss_newton_matrix_for_the_hessian_is_refused(monkeypatch):
    net = NETS["linear layers"]

    class WithGaussNewton(type(net)):
        def hvp(self, primal, v):
            return self.gauss_newton_product(primal, v)

    other = WithGaussNewton(net.named_layers, net.loss_function, net.input_shape)
    phi, batch = start(net)
    right = laplace_checks.at_point(net, phi, batch)
    wrong = laplace.by_basis(laplace_checks.at_point(other, phi, batch), 3.0)
    assert relative_error(wrong.value, laplace.by_basis(right, 3.0).value) > 1e-3


LANCZOS = {
    "without the norm": lambda found: found._replace(norm=0 * found.norm + 1),
    "eigenvectors in rows": lambda found: found._replace(vectors=found.vectors.swapaxes(1, 2)),
    "the wrong way around": lambda found: found._replace(basis=found.basis[::-1]),
}


@pytest.mark.parametrize("error", LANCZOS)
def test_a_planted_error_of_lanczos_is_refused(monkeypatch, error):
    planted(monkeypatch, laplace_checks, "lanczos", lambda right, *a: LANCZOS[error](right(*a)))
    assert failed(laplace_checks.lanczos_check())


def test_the_basis_stays_orthonormal_where_digits_cancel():
    """Three terms alone lose it: why every earlier q is taken off."""
    h = np.concatenate([np.linspace(1, 2, 50), [1e3, 1e4, 1e5]])
    found = lanczos.lanczos(lambda v: h * v, np.ones((1, len(h))), len(h))
    Q = found.basis[:, 0]
    assert abs(Q @ Q.T - np.eye(len(h))).max() < 1e-13
    # Eigenvalues of T round relative to the largest: eps times the condition number.
    assert relative_error(found.quadratic_form(np.log)[0], np.log(h).sum()) < 1e-10


# ---- planted errors: the Kronecker factors -------------------------------------------

FACTORS = {
    "the adjoints' share is missing": lambda right, *a: right(*a)._replace(ddy=0 * right(*a).ddy),
    "the inputs' share is missing": lambda right, *a: right(*a)._replace(dx=0 * right(*a).dx),
    "half of both": lambda right, *a: right(*a)._replace(
        dx=right(*a).dx / 2, ddy=right(*a).ddy / 2
    ),
}


@pytest.mark.parametrize("name", ["linear layers", "convolutions"])
@pytest.mark.parametrize("error", FACTORS)
def test_a_planted_error_of_the_factors_is_refused(monkeypatch, error, name):
    planted(monkeypatch, kronecker, "factors", FACTORS[error])
    assert failed(laplace_checks.factor_checks("planted", NETS[name], K)) == {"its gradient"}
    assert not of_llama(KRONECKER, name).passed


VALUES = {
    "tau for its root": lambda right, k, M, g: right(k, M, g * g),
    "the undamped inverse": lambda right, k, M, g: (right(k, M, g)[0], right(k, M, 1e-6)[1]),
    "a clamped determinant": lambda right, k, M, g: (
        np.log(np.maximum(np.exp(right(k, M, g)[0]), 1.0)),
        right(k, M, g)[1],
    ),
}


@pytest.mark.parametrize("error", VALUES)
def test_a_planted_error_of_the_damped_inverse_is_refused(monkeypatch, error):
    planted(monkeypatch, kronecker, "damped_inverse", VALUES[error])
    assert failed(laplace_checks.factor_checks("planted", NETS["convolutions"], K))


WINDOWS = {
    "windows upside down": lambda right, k, layer, da, x: right(k, layer, da[..., ::-1], x),
    "taps in another order": lambda right, k, layer, da, x: np.flip(
        right(k, layer, da, x), axis=(3, 4)
    ),
    "channels exchanged": lambda right, k, layer, da, x: right(k, layer, da, x)[:, :, ::-1],
}


@pytest.mark.parametrize("error", WINDOWS)
def test_a_planted_error_of_the_windows_adjoint_is_refused(monkeypatch, error):
    planted(monkeypatch, kronecker, "from_windows", WINDOWS[error])
    rows = laplace_checks.factor_checks("planted", NETS["convolutions"], K)
    assert failed(rows) == {"its gradient"}


# ---- planted errors: the recursion ---------------------------------------------------


def added_at_the_end(self, net, theta, batch, trace):
    """The term's gradient beside the recursion, not through it."""
    found = rm.MAML.task_gradients(self, net, theta, batch, trace)
    phi = self.adapt(net, theta, batch.x_support, batch.y_support)
    _, gradient, _ = self.laplace_term(net, phi, batch.x_support, batch.y_support)
    return replace(found, grad=found.grad + self.weight * gradient)


def without_the_term(self, net, theta, batch, trace):
    return rm.MAML.task_gradients(self, net, theta, batch, trace)


def at_the_start(self, net, phi, x, y):
    return LAPLACE_TERM(self, net, 0.9 * phi, x, y)


def on_the_query_set(self, net, theta, batch, trace):
    """The curvature of the query loss."""
    other = LLAMA(self.inner_lr, self.inner_steps, weight=self.weight, precision=self.precision)
    object.__setattr__(other, "curvature", self.curvature)
    sets = batch.x_query, batch.y_query
    object.__setattr__(
        other, "laplace_term", lambda net, phi, x, y: LAPLACE_TERM(self, net, phi, *sets)
    )
    return TASK_GRADIENTS(other, net, theta, batch, trace)


LAPLACE_TERM, TASK_GRADIENTS = LLAMA.laplace_term, LLAMA.task_gradients


@pytest.mark.parametrize("method", [HESSIAN, KRONECKER], ids=lambda m: m.curvature)
@pytest.mark.parametrize(
    "name, wrong",
    [
        ("task_gradients", added_at_the_end),
        ("task_gradients", without_the_term),
        ("task_gradients", on_the_query_set),
        ("laplace_term", at_the_start),
    ],
)
def test_a_planted_error_of_the_recursion_is_refused(monkeypatch, method, name, wrong):
    monkeypatch.setattr(LLAMA, name, wrong)
    check = of_llama(method)
    assert not check.passed and check.error > 1e-6, check
