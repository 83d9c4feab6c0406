"""The meta-gradient through inner policy-gradient steps, hand-written."""

import numpy as np
import pytest
from rl_cases import frozen_batch, off, policy_of

import refmaml as rm
from refmaml.oracles import complex_step

TOL = 1e-12
ESTIMATORS = [rm.NaiveSurrogate(), rm.LVC(), rm.DiCE()]
ALPHA = 0.2


def case(steps):
    """(policy, theta, inner batches, outer batch)"""
    policy, w = policy_of(log_sigma=(-0.3, 0.2))
    batches = [frozen_batch(policy, w[:1], seed=10 + k) for k in range(steps + 1)]
    return policy, w[0], batches[:-1], batches[-1]


def meta_value(method, policy, inner, outer, second=None):
    """theta -> the function of each task whose gradient the meta-gradient is, (T,)."""
    J = (outer.rewards * outer.valid).sum(axis=(1, 2))
    J = J / (outer.num_steps if method.over == "steps" else outer.axes[1])
    after = rm.EstimatedReturn(policy, method.estimator, outer, method.over)

    def value(theta):
        phi, scores = theta[None], 0
        for batch in inner:
            if method.score_term:
                scores = scores + rm.EstimatedReturn(policy, rm.Score(), batch).value(phi)
            step = rm.EstimatedReturn(policy, method.estimator, batch, method.over)
            phi = phi + method.inner_lr * step.gradient(phi)
        return after.value(phi) + J * scores

    return value


@pytest.mark.parametrize("over", ["steps", "trajectories"])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_the_meta_gradient_is_the_complex_step_through_the_inner_steps(
    estimator, score, steps, over
):
    policy, theta, inner, outer = case(steps)
    method = rm.PolicyMAML(ALPHA, estimator, score_term=score, over=over)
    got = method.meta_gradient(policy, theta, inner, outer)
    v = np.random.default_rng(5).standard_normal(theta.shape)
    value = meta_value(method, policy, inner, outer)
    assert off(got.task_grads @ v, complex_step.directional(value, theta, v)) <= TOL
    assert off(got.grad, got.task_grads.mean(axis=0)) <= TOL


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_push_and_pull_are_adjoint(estimator):
    policy, theta, inner, _ = case(2)
    adapted = rm.PolicyMAML((0.3, 0.1), estimator).adapt(policy, theta, inner)
    u, v = np.random.default_rng(6).standard_normal((2, 2, len(theta)))
    assert off((u * adapted.push(v)).sum(1), (v * adapted.pull(u)).sum(1)) <= TOL
    value = complex_step.directional(
        lambda at: rm.PolicyMAML((0.3, 0.1), estimator).adapt(policy, at, inner).phi, theta, v[0]
    )
    assert off(adapted.push(v[:1]), value) <= TOL


def test_first_order_is_the_outer_gradient():
    policy, theta, inner, outer = case(2)
    method = rm.PolicyMAML(ALPHA, rm.DiCE(), first_order=True)
    got = method.meta_gradient(policy, theta, inner, outer)
    phi = method.adapt(policy, theta, inner).phi
    truth = rm.EstimatedReturn(policy, rm.DiCE(), outer).gradient(phi)
    assert off(got.task_grads, truth) <= TOL


def test_the_second_batches_enter_through_the_hessian_alone():
    policy, theta, inner, outer = case(2)
    second = [frozen_batch(policy, theta[None], seed=20 + k) for k in range(2)]
    method = rm.PolicyMAML(ALPHA, rm.LVC())
    got = method.meta_gradient(policy, theta, inner, outer, second)
    phis = method.adapt(policy, theta, inner).phis
    lam = rm.EstimatedReturn(policy, rm.LVC(), outer).gradient(phis[2])
    for k in (1, 0):
        H = rm.EstimatedReturn(policy, rm.LVC(), second[k])
        lam = lam + ALPHA * H.hvp(H.primal(phis[k]), lam)
    assert off(got.task_grads, lam) <= TOL
    assert all(off(a, b) == 0 for a, b in zip(got.adapted.phis, phis, strict=True))


# ---- a bandit, where expectations are sums over quadrature nodes ---------------------

Q, G, S, RATE, START = 1.0, 1.0, 0.5, 0.3, -0.4


def bandit(N, nodes=12):
    """(policy, theta, inner batch, weights): a task for each of nodes^N draws of N."""
    net = rm.Sequential([rm.Linear(1, 1, bias=False)], rm.MSE(), (1,))
    policy = rm.GaussianPolicy(net, log_sigma=np.log(S), learn_sigma=False)
    x, weight = np.polynomial.hermite_e.hermegauss(nodes)
    e = np.stack(np.meshgrid(*[x] * N, indexing="ij"), axis=-1).reshape(-1, N)
    W = np.prod(np.stack(np.meshgrid(*[weight] * N), axis=-1).reshape(-1, N), axis=1)
    actions = (START + S * e)[:, :, None, None]
    rewards = -Q / 2 * (actions[..., 0] - G) ** 2
    states = np.ones_like(actions)
    batch = rm.Trajectories(states, actions, rewards, advantages=rewards)
    return policy, np.array([START]), batch, W / W.sum()


def expected(estimator, N, score):
    """The meta-gradient's expectation, with the exact outer gradient and return."""
    policy, theta, batch, W = bandit(N)
    adapted = rm.PolicyMAML(RATE, estimator).adapt(policy, theta, [batch])
    m = adapted.phi - G
    gradient = adapted.pull(-Q * m)
    if score:
        J = -Q / 2 * (m**2 + S**2)
        gradient = gradient + J * rm.EstimatedReturn(policy, rm.Score(), batch).gradient(
            theta[None]
        )
    return float(W @ gradient[:, 0])


@pytest.mark.parametrize(
    ("estimator", "score", "values"),
    [
        (rm.NaiveSurrogate(), True, (1.62092, 1.15346)),
        (rm.NaiveSurrogate(), False, (1.471, 1.875)),
        (rm.DiCE(), False, (4.048, 2.367)),
        (rm.LVC(), False, (4.048, 2.367)),  # one step: LVC and DiCE are the same
    ],
)
def test_expectations_on_a_bandit(estimator, score, values):
    for N, value in zip((1, 2), values, strict=True):
        assert abs(expected(estimator, N, score) - value) <= 5e-4  # the last printed digit
        if score:
            m = START - G
            exact = -Q * (1 - RATE * Q) ** 2 * m
            exact -= RATE**2 * Q**3 / (2 * N) * (m**3 / S**2 + 7 * m)
            assert abs(expected(estimator, N, score) - exact) <= 1e-12


# ---- errors --------------------------------------------------------------------------


def test_arguments_are_checked():
    policy, theta, inner, outer = case(1)
    method = rm.PolicyMAML(ALPHA)
    with pytest.raises(rm.ArgumentError, match="theta: expected an array of shape"):
        method.meta_gradient(policy, theta[None], inner, outer)
    with pytest.raises(rm.ArgumentError, match="second: expected 1 batches"):
        method.meta_gradient(policy, theta, inner, outer, second=[])
    with pytest.raises(rm.ArgumentError, match="inner_lr: expected 1 numbers"):
        rm.PolicyMAML((0.1, 0.2)).meta_gradient(policy, theta, inner, outer)
    with pytest.raises(rm.ArgumentError, match="estimator: expected"):
        rm.PolicyMAML(0.1, rm.DiCE)
    with pytest.raises(rm.ArgumentError, match="score_term: expected"):
        rm.PolicyMAML(0.1, score_term="yes")


# ---- planted errors ------------------------------------------------------------------


def test_planted_errors_are_caught(monkeypatch):
    from refmaml.rl.meta_gradient import AdaptedPolicy

    def minus(self, lam, added=None):
        rates = [step._replace(rate=-step.rate) for step in self.steps]
        return right(self._replace(steps=rates), lam, added)

    def reversed_steps(self, lam, added=None):
        return right(self._replace(steps=self.steps[::-1]), lam, added)

    right = AdaptedPolicy.adjoints
    for wrong in (minus, reversed_steps):
        monkeypatch.setattr(AdaptedPolicy, "adjoints", wrong)
        with pytest.raises(AssertionError):
            test_the_meta_gradient_is_the_complex_step_through_the_inner_steps(
                rm.DiCE(), False, 2, "steps"
            )


def test_a_score_term_from_means_is_caught(monkeypatch):
    original = rm.PolicyMAML.score_terms

    def means(self, policy, adapted, inner, J):
        terms = original(self, policy, adapted, inner, J)
        return [term / batch.mask[0].sum() for term, batch in zip(terms, inner, strict=True)]

    monkeypatch.setattr(rm.PolicyMAML, "score_terms", means)
    with pytest.raises(AssertionError):
        test_the_meta_gradient_is_the_complex_step_through_the_inner_steps(
            rm.DiCE(), True, 1, "steps"
        )
