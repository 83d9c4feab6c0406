"""ALPaCA: the predictive likelihood of Bayesian linear regression on features."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.methods import bayesian_regression
from refmaml.methods.bayesian_regression import Prior
from refmaml.methods.symmetric_solves import times
from refmaml.oracles import cases, method_checks, solved_heads
from refmaml.oracles.solved_head_checks import evidence_check, hvp_check, regression_net, start
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()
PROMISE = 1e-12  # what the project promises of every derivative in float64
METHOD = rm.ALPaCA(0.75, 0.25)
NETS = {
    "with a bias": regression_net(),
    "without a bias": regression_net(bias=False),
    "more features than examples": rm.Sequential(
        [rm.Linear(3, 12), rm.Tanh(), rm.Linear(12, 1)], rm.MSE(), (3,)
    ),
}
RIGHT = {name: getattr(bayesian_regression, name) for name in ("backward", "r_backward", "forward")}


@pytest.mark.parametrize("name", NETS)
def test_a_meta_gradient_is_the_derivative_of_the_joint_likelihood(name):
    net = NETS[name]
    check = method_checks.meta_gradient_check(METHOD, net, *start(METHOD, net))
    assert check.passed and check.error < PROMISE, check


@pytest.mark.parametrize("name", NETS)
def test_a_second_derivative_is_that_of_the_meta_gradient(name):
    check = hvp_check(METHOD, NETS[name], *start(METHOD, NETS[name]), name)
    assert check.passed and check.error < PROMISE, check


def test_predictive_likelihoods_multiply_to_the_evidence():
    assert evidence_check(K).error < 1e-13


# ---- planted errors ------------------------------------------------------------------


def without_the_variance(k, saved):
    """dX of the mean alone: the features' share in s is missing."""
    dX, dQ, dprior, kept = RIGHT["backward"](k, saved)
    return dX + 2 * times(k, kept.E, kept.ds[..., None] * saved.a), dQ, dprior, kept


def one_sided_factor(k, saved):
    """dL of L L' as if one of the two L were a constant."""
    dX, dQ, dprior, kept = RIGHT["backward"](k, saved)
    return dX, dQ, dprior._replace(L=dprior.L / 2), kept


def identity_precision(k, saved):
    """dW0 without Lambda."""
    dX, dQ, dprior, kept = RIGHT["backward"](k, saved)
    return dX, dQ, dprior._replace(W0=kept.U), kept


def linear_noise(k, saved):
    """The derivative in v where that in its logarithm is due."""
    dX, dQ, dprior, kept = RIGHT["backward"](k, saved)
    return dX, dQ, dprior._replace(ell=dprior.ell / np.exp(saved.prior.ell)), kept


@pytest.mark.parametrize(
    "wrong", [without_the_variance, one_sided_factor, identity_precision, linear_noise]
)
def test_a_planted_error_is_refused(monkeypatch, wrong):
    net = NETS["with a bias"]
    meta, batch = start(METHOD, net)
    monkeypatch.setattr(bayesian_regression, "backward", wrong)
    check = method_checks.meta_gradient_check(METHOD, net, meta, batch)
    assert not check.passed and check.error > 1e-3, check


@pytest.mark.parametrize("part", ["rs", "ra", "rW", "rA"])
def test_a_planted_error_of_the_second_derivative_is_refused(monkeypatch, part):
    def wrong(k, saved, adjoints, tangents):
        forgotten = tangents._replace(**{part: 0 * getattr(tangents, part)})
        return RIGHT["r_backward"](k, saved, adjoints, forgotten)

    net = NETS["with a bias"]
    meta, batch = start(METHOD, net)
    monkeypatch.setattr(bayesian_regression, "r_backward", wrong)
    check = hvp_check(METHOD, net, meta, batch, "planted")
    assert not check.passed and check.error > 1e-3, check


def test_a_predictive_variance_without_the_noise_s_one_is_refused(monkeypatch):
    def wrong(k, X, Y, Q, Yq, prior):
        loss, saved = RIGHT["forward"](k, X, Y, Q, Yq, prior)
        s, C = saved.s - 1, Yq.shape[2]
        v, square = np.exp(prior.ell), (saved.e**2).sum(axis=2)
        terms = C * np.log(2 * np.pi * v * s) + square / (v * s)
        return terms.mean(axis=1) / 2, saved._replace(s=s)

    monkeypatch.setattr(bayesian_regression, "forward", wrong)
    assert evidence_check(K).error > 1e-2


# ---- what it computes ----------------------------------------------------------------


def test_the_adapted_head_is_the_posterior_s_mean():
    """With W0 = 0 and Lambda = lambda I: ridge regression."""
    net = NETS["without a bias"]
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    theta[net.mask(("head",))] = 0
    method = rm.ALPaCA(0.5, 0.1)
    phi = method.adapt(net, method.init(net, theta), batch.x_support, batch.y_support)
    X = solved_heads.features(net, phi, batch.x_support)
    for W, x, y in zip(net.parameters.views(phi)[-1]["weight"], X, batch.y_support, strict=True):
        assert relative_error(W, solved_heads.ridge_weights(x, y, 0.5).T) < 1e-13


def test_without_examples_the_prior_predicts():
    rng = np.random.default_rng(0)
    prior = Prior(rng.standard_normal((1, 2, 3)), np.eye(3)[None], -1.0)
    none, Q = np.zeros((1, 0, 3)), rng.standard_normal((1, 4, 3))
    _, saved = bayesian_regression.forward(
        K, none, np.zeros((1, 0, 2)), Q, np.zeros((1, 4, 2)), prior
    )
    assert relative_error(saved.W, prior.W0) < 1e-15
    assert relative_error(saved.s, 1 + (Q**2).sum(axis=2)) < 1e-15


def test_its_gradient_is_zero_nowhere_by_construction_and_chunks_change_no_bit():
    net = NETS["with a bias"]
    meta, _ = start(METHOD, net)
    batch = cases.tasks_for(net, np.random.default_rng(3), tasks=5)
    whole = METHOD.meta_gradient(net, meta, batch, chunk=5)
    assert (whole.grad != 0).all()
    for chunk in (1, 2):
        assert np.array_equal(METHOD.meta_gradient(net, meta, batch, chunk=chunk).grad, whole.grad)


@pytest.mark.slow
def test_float32_and_the_cpu_kernels_agree_with_the_reference():
    net = NETS["with a bias"]
    meta, batch = start(METHOD, net)
    exact = METHOD.meta_gradient(net, meta, batch).grad
    cpu = METHOD.meta_gradient(net.with_kernels("cpu"), meta, batch).grad
    assert relative_error(cpu, exact) < PROMISE
    single = METHOD.meta_gradient(net, meta.astype(np.float32), batch).grad
    assert single.dtype == np.float32 and relative_error(single, exact) < 1e-4


def test_the_product_of_two_tangents_keeps_its_symmetry():
    net = NETS["with a bias"]
    meta, batch = start(METHOD, net)
    u, v = np.random.default_rng(1).standard_normal((2, len(meta)))
    left, right = u @ METHOD.hvp(net, meta, batch, v), v @ METHOD.hvp(net, meta, batch, u)
    assert abs(left - right) < 1e-12 * abs(left)


def test_labels_are_unit_vectors_and_have_an_accuracy():
    net, rng = cases.smooth_net(), np.random.default_rng(0)
    meta, batch = METHOD.init(net, cases.start(net, rng)), cases.tasks_for(net, rng)
    one_hot = np.eye(net.layers[-1].out_features)
    as_numbers = rm.Batch(
        batch.x_support, one_hot[batch.y_support], batch.x_query, one_hot[batch.y_query]
    )
    out = METHOD.meta_gradient(net, meta, batch)
    same = METHOD.meta_gradient(net.with_loss(rm.MSE()), meta, as_numbers)
    assert np.array_equal(out.grad, same.grad) and same.accuracy is None
    phi = METHOD.adapt(net, meta, batch.x_support, batch.y_support)
    assert out.accuracy == net.primal(phi, batch.x_query, batch.y_query).accuracy.mean()
    check = hvp_check(METHOD, net, meta, batch, "labels")
    assert check.passed and check.error < PROMISE, check


# ---- errors --------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["precision", "noise"])
def test_a_bad_field_is_refused(field):
    with pytest.raises(rm.ArgumentError, match=f"^{field}: expected a finite number > 0"):
        rm.ALPaCA(**{field: 0.0})


def test_an_overflow_is_named():
    net = NETS["without a bias"]
    meta, batch = start(METHOD, net)
    broken = meta.astype(np.float32)
    broken[-1] = -200.0  # the noise underflows
    with pytest.raises(rm.NonFiniteError, match="^query set: the predictive likelihood"):
        METHOD.meta_gradient(net, broken, batch)
