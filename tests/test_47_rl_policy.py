"""A Gaussian policy: its four passes, its KL divergence and its Fisher products."""

import numpy as np
import pytest
from rl_cases import policy_of, trajectories_of

import refmaml as rm
from refmaml.oracles import complex_step
from refmaml.rl import gaussian_density

TOL = 1e-12  # relative: sums of some hundred numbers in float64


def off(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.fixture(params=[True, False], ids=["learned sigma", "fixed sigma"])
def case(request):
    """(policy, w, batch, weights, direction, tangents of the weights)"""
    options = {"log_sigma": (-0.3, 0.2), "learn_sigma": request.param}
    policy, w = policy_of(**options)
    batch = trajectories_of(policy, w)
    rng = np.random.default_rng(2)
    q, rq = rng.standard_normal((2, *batch.axes)) * batch.valid
    return policy, w, batch, q, rng.standard_normal(w.shape), rq


def test_log_probabilities_are_sums_over_action_dimensions(case):
    policy, w, batch, *_ = case
    mu, s = policy.mean(w, batch.states), np.exp(policy.log_sigma(w))[:, None, None]
    terms = -((batch.actions - mu) ** 2) / (2 * s**2) - np.log(s) - np.log(2 * np.pi) / 2
    got = policy.log_probs(w, batch.states, batch.actions)
    assert off(got, terms.sum(axis=3)) <= TOL and got.shape == batch.axes


def test_the_gradient_is_the_complex_step_of_the_log_probabilities(case):
    policy, w, batch, q, v, _ = case
    got = policy.gradient(w, batch.states, batch.actions, q)

    def value(at):
        return (q * policy.log_probs(at, batch.states, batch.actions)).sum(axis=(1, 2))

    assert off((got * v).sum(axis=1), complex_step.directional(value, w, v)) <= TOL


def test_the_tangent_is_the_adjoint_of_the_gradient(case):
    policy, w, batch, q, v, _ = case
    here = policy.forward(w, batch.states, batch.actions)
    c = policy.r_forward(here, v).log_probs
    truth = complex_step.directional(
        lambda at: policy.log_probs(at, batch.states, batch.actions), w, v
    )
    assert off(c, truth) <= TOL
    left, right = (q * c).sum(axis=(1, 2)), (policy.backward(here, q).grad * v).sum(axis=1)
    assert off(left, right) <= TOL


def test_products_are_the_complex_step_of_the_gradient(case):
    policy, w, batch, q, v, rq = case
    given = batch.states, batch.actions
    got = policy.hvp(w, *given, q, v)
    truth = complex_step.directional(lambda at: policy.gradient(at, *given, q), w, v)
    assert off(got, truth) <= TOL
    moving = policy.hvp(w, *given, q, v, rq)
    assert off(moving, truth + policy.gradient(w, *given, rq)) <= TOL


def test_products_without_tangents_of_weights_are_symmetric(case):
    policy, w, batch, q, v, _ = case
    u = np.random.default_rng(3).standard_normal(w.shape)
    left = (u * policy.hvp(w, batch.states, batch.actions, q, v)).sum(axis=1)
    right = (v * policy.hvp(w, batch.states, batch.actions, q, u)).sum(axis=1)
    assert off(left, right) <= TOL


def test_one_row_of_parameters_serves_all_tasks(case):
    policy, w, batch, q, v, rq = case
    shared = np.repeat(w[:1], 2, axis=0)
    given = batch.states, batch.actions, q, v[:1], rq
    assert off(policy.hvp(w[:1], *given), policy.hvp(shared, *given)) <= TOL
    given = batch.states, batch.actions, q
    assert off(policy.gradient(w[:1], *given), policy.gradient(shared, *given)) <= TOL


def test_the_divergence_is_that_of_gaussians(case):
    policy, w, batch, _, v, _ = case
    kl = rm.PolicyKL(policy, w, batch.states, batch.valid)
    assert np.abs(kl.value(w)).max() <= 1e-15 and np.abs(kl.gradient(w)).max() <= 1e-15
    at = w + 0.1 * v
    mu, s = (f(policy, x, batch) for f, x in ((means, w), (deviations, w)))
    mu1, s1 = (f(policy, x, batch) for f, x in ((means, at), (deviations, at)))
    terms = np.log(s1 / s) + (s**2 + (mu - mu1) ** 2) / (2 * s1**2) - 0.5
    valid = batch.valid
    truth = (terms.sum(axis=3) * valid).sum(axis=(1, 2)) / valid.sum(axis=(1, 2))
    assert off(kl.value(at), truth) <= TOL


def means(policy, w, batch):
    return policy.mean(w, batch.states)


def deviations(policy, w, batch):
    return np.exp(policy.log_sigma(w))[:, None, None]


def test_the_divergence_s_derivatives_are_the_complex_step(case):
    policy, w, batch, _, v, _ = case
    kl, at = rm.PolicyKL(policy, w, batch.states, batch.valid), w + 0.2 * v
    u = np.random.default_rng(4).standard_normal(w.shape)
    slope = complex_step.directional(kl.value, at, u)
    assert off((kl.gradient(at) * u).sum(axis=1), slope) <= TOL
    truth = complex_step.directional(kl.gradient, at, u)
    assert off(kl.hvp(kl.primal(at), u), truth) <= TOL


def test_the_fisher_product_is_the_hessian_at_the_old_parameters(case):
    policy, w, batch, _, v, _ = case
    kl = rm.PolicyKL(policy, w, batch.states, batch.valid)
    assert off(kl.fisher_product(v), kl.hvp(kl.primal(w), v)) <= TOL
    assert ((v * kl.fisher_product(v)).sum(axis=1) > 0).all()


def test_masked_states_do_not_count(case):
    policy, w, batch, _, v, _ = case
    states = batch.states.copy()
    states[batch.valid == 0] = 9.0
    first, second = (rm.PolicyKL(policy, w, s, batch.valid) for s in (batch.states, states))
    assert off(second.fisher_product(v), first.fisher_product(v)) <= TOL
    assert off(second.value(w + 0.1 * v), first.value(w + 0.1 * v)) <= TOL


def test_samples_have_the_policy_s_mean_and_deviation():
    policy, w = policy_of(log_sigma=(-0.3, 0.2))
    states = np.ones((2, 1, 20_000, 3))
    a = policy.sample(w, states, np.random.default_rng(0))
    sigma = np.exp(policy.log_sigma(w))
    assert np.abs((a.mean(axis=(1, 2)) - policy.mean(w, states)[:, 0, 0]) / sigma).max() < 0.03
    assert np.abs(a.std(axis=(1, 2)) / sigma - 1).max() < 0.03  # four deviations are 0.02


def test_a_policy_in_float32_stays_in_float32():
    policy, w = policy_of()
    batch = trajectories_of(policy, w)
    w, states, actions, q = (
        a.astype(np.float32) for a in (w, batch.states, batch.actions, batch.valid)
    )
    got = policy.hvp(w, states, actions, q, w, q)
    assert got.dtype == np.float32 and policy.sample(w, states, np.random.default_rng(0)).dtype == (
        np.float32
    )
    truth = policy.hvp(*(a.astype(float) for a in (w, states, actions, q, w, q)))
    assert off(got, truth) < 1e-4


# ---- errors --------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_refused():
    policy, w = policy_of()
    states = np.zeros((2, 3, 4, 3))
    with pytest.raises(rm.ArgumentError, match=r"w: expected shape \(2 or 1, 34\), got \(2, 33\)"):
        policy.mean(w[:, :-1], states)
    with pytest.raises(rm.ArgumentError, match="states: expected"):
        policy.mean(w, states[..., :2])
    with pytest.raises(rm.ArgumentError, match="actions: expected"):
        policy.log_probs(w, states, np.zeros((2, 3, 4, 1)))
    with pytest.raises(rm.ArgumentError, match="q: expected shape"):
        policy.gradient(w, states, np.zeros((2, 3, 4, 2)), np.ones((2, 3)))
    with pytest.raises(rm.ArgumentError, match="v: expected shape"):
        policy.hvp(w, states, np.zeros((2, 3, 4, 2)), np.ones((2, 3, 4)), w[0])
    with pytest.raises(rm.ArgumentError, match="log_sigma: expected"):
        policy_of(log_sigma=(1.0, 2.0, 3.0))
    with pytest.raises(rm.ArgumentError, match="net: expected"):
        rm.GaussianPolicy(rm.conv4())
    with pytest.raises(rm.ArgumentError, match="mask: expected at least one state"):
        rm.PolicyKL(policy, w, states, np.zeros((2, 3, 4)))


# ---- planted errors: each of the tests above can fail --------------------------------


def mean_over_actions(xp, mu, l, actions):
    """log pi averaged over action dimensions."""
    log_probs, saved = ORIGINAL["forward"](xp, mu, l, actions)
    return log_probs / mu.shape[2], saved


def without_sigma(saved, q):
    """dl without its -1."""
    dmu, dl = ORIGINAL["backward"](saved, q)
    return dmu, dl + q.sum(axis=1)[:, None]


def without_product_rule(saved, q, rq, re, rl):
    """rdmu without the tangent of 1 / s."""
    e, inverse = saved
    rdmu, rdl = ORIGINAL["r_backward"](saved, q, rq, re, rl)
    return rdmu + q[..., None] * e * rl[:, None] * inverse, rdl


PLANTED = {"forward": mean_over_actions, "backward": without_sigma}
PLANTED["r_backward"] = without_product_rule
ORIGINAL = {name: getattr(gaussian_density, name) for name in PLANTED}
CAUGHT_BY = {
    "forward": test_log_probabilities_are_sums_over_action_dimensions,
    "backward": test_the_gradient_is_the_complex_step_of_the_log_probabilities,
    "r_backward": test_products_are_the_complex_step_of_the_gradient,
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_errors_are_caught(name, monkeypatch):
    monkeypatch.setattr(gaussian_density, name, PLANTED[name])
    policy, w = policy_of(log_sigma=(-0.3, 0.2))
    batch = trajectories_of(policy, w)
    q, rq = np.random.default_rng(2).standard_normal((2, *batch.axes)) * batch.valid
    v = np.random.default_rng(5).standard_normal(w.shape)
    with pytest.raises(AssertionError):
        CAUGHT_BY[name]((policy, w, batch, q, v, rq))
