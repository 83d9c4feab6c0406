"""Naive surrogate, LVC, DiCE and the score on frozen batches of trajectories."""

from dataclasses import replace

import numpy as np
import pytest
from rl_cases import frozen_batch, off, policy_of

import refmaml as rm
from refmaml.oracles import complex_step

TOL = 1e-12  # relative: sums of some hundred numbers in float64
ALL = [rm.NaiveSurrogate(), rm.LVC(), rm.DiCE(), rm.Score()]
OF_RETURN = ALL[:3]
by_name = pytest.mark.parametrize("estimator", ALL, ids=repr)


def case(estimator, over="trajectories", move=0.2):
    """(objective, w, v): w is not where the batch was drawn, unless move is 0."""
    policy, old = policy_of(log_sigma=(-0.3, 0.2))
    rng = np.random.default_rng(3)
    v, shift = rng.standard_normal((2, *old.shape))
    batch = frozen_batch(policy, old)
    return rm.EstimatedReturn(policy, estimator, batch, over), old + move * shift, v


@by_name
@pytest.mark.parametrize("over", ["trajectories", "steps"])
def test_the_gradient_is_the_complex_step_of_the_value(estimator, over):
    objective, w, v = case(estimator, over)
    got = (objective.gradient(w) * v).sum(axis=1)
    assert off(got, complex_step.directional(objective.value, w, v)) <= TOL


@by_name
@pytest.mark.parametrize("over", ["trajectories", "steps"])
def test_products_are_the_complex_step_of_the_gradient(estimator, over):
    objective, w, v = case(estimator, over)
    got = objective.hvp(objective.primal(w), v)
    assert off(got, complex_step.directional(objective.gradient, w, v)) <= TOL


@by_name
def test_products_are_symmetric_and_linear(estimator):
    objective, w, v = case(estimator)
    here, u = objective.primal(w), np.random.default_rng(4).standard_normal(w.shape)
    Hv, Hu = objective.hvp(here, v), objective.hvp(here, u)
    assert off((u * Hv).sum(axis=1), (v * Hu).sum(axis=1)) <= TOL
    assert off(objective.hvp(here, 2 * v - u), 2 * Hv - Hu) <= TOL


@pytest.mark.parametrize("estimator", OF_RETURN, ids=repr)
def test_all_have_the_policy_gradient_where_the_batch_was_drawn(estimator):
    objective, w, _ = case(estimator, move=0)
    naive, *_ = case(rm.NaiveSurrogate(), move=0)
    assert off(objective.gradient(w), naive.gradient(w)) <= TOL


@by_name
def test_without_old_log_probabilities_the_ratios_are_1_everywhere(estimator):
    objective, w, v = case(estimator, move=0)
    boxed = rm.EstimatedReturn(
        objective.policy, estimator, replace(objective.batch, log_probs=None)
    )
    assert off(boxed.gradient(w), objective.gradient(w)) <= TOL
    truth = objective.hvp(objective.primal(w), v)
    assert off(boxed.hvp(boxed.primal(w), v), truth) <= TOL


def terms(objective, w, v):
    """(g, c, q): grad log pi (T, N, H, P) of each step, c = g . v and the weights."""
    policy, batch = objective.policy, objective.batch
    g = np.zeros((*batch.axes, policy.num_params))
    for n, h in np.ndindex(batch.axes[1:]):
        one = np.zeros(batch.axes)
        one[:, n, h] = batch.valid[:, n, h]
        g[:, n, h] = policy.gradient(w, batch.states, batch.actions, one)
    return g, (g * v[:, None, None]).sum(axis=3), objective.frozen.q


def test_lvc_is_naive_and_a_policy_gradient_with_weights_a_c():
    objective, w, v = case(rm.LVC(), move=0)
    naive, *_ = case(rm.NaiveSurrogate(), move=0)
    g, c, q = terms(objective, w, v)
    truth = naive.hvp(naive.primal(w), v) + ((q * c)[..., None] * g).sum(axis=(1, 2))
    assert off(objective.hvp(objective.primal(w), v), truth) <= TOL


def test_dice_is_naive_and_the_squared_score_of_each_prefix():
    objective, w, v = case(rm.DiCE(), move=0)
    naive, *_ = case(rm.NaiveSurrogate(), move=0)
    g, _, q = terms(objective, w, v)
    truth = naive.hvp(naive.primal(w), v)
    for n, t in np.ndindex(q.shape[1:]):
        reward = q[:, n, t] - (q[:, n, t + 1] if t + 1 < q.shape[2] else 0)
        prefix = g[:, n, : t + 1].sum(axis=1)
        truth += (reward * (prefix * v).sum(axis=1))[:, None] * prefix
    assert off(objective.hvp(objective.primal(w), v), truth) <= TOL


def test_lvc_and_dice_agree_on_trajectories_of_one_step():
    policy, w = policy_of()
    batch, v = frozen_batch(policy, w, H=1), np.random.default_rng(3).standard_normal(w.shape)
    lvc, dice, naive = (
        rm.EstimatedReturn(policy, e, batch) for e in (rm.LVC(), rm.DiCE(), rm.NaiveSurrogate())
    )
    product = lvc.hvp(lvc.primal(w), v)
    assert off(dice.hvp(dice.primal(w), v), product) <= TOL
    assert off(naive.hvp(naive.primal(w), v), product) > 0.1


def test_dice_s_value_is_the_mean_of_the_first_weights():
    objective, w, _ = case(rm.DiCE(), move=0)
    truth = objective.batch.advantages[:, :, 0].mean(axis=1)
    assert off(objective.value(w), truth) <= TOL


def test_masked_steps_change_nothing():
    for estimator in ALL:
        objective, w, v = case(estimator)
        rubbish = objective.batch
        valid = rubbish.valid
        states = np.where(valid[..., None] == 1, rubbish.states, 7.0)
        changed = replace(
            rubbish,
            states=states,
            advantages=np.where(valid == 1, rubbish.advantages, -50.0),
            log_probs=np.where(valid == 1, rubbish.log_probs, 900.0),
        )
        other = rm.EstimatedReturn(objective.policy, estimator, changed)
        for a, b in ((objective, other), (other, objective)):
            assert off(a.hvp(a.primal(w), v), b.hvp(b.primal(w), v)) <= TOL
            assert off(a.value(w), b.value(w)) <= TOL


def test_arguments_are_checked():
    policy, w = policy_of()
    batch = frozen_batch(policy, w)
    with pytest.raises(rm.ArgumentError, match="estimator: expected an estimator"):
        rm.EstimatedReturn(policy, "dice", batch)
    with pytest.raises(rm.ArgumentError, match="batch: expected Trajectories with advantages"):
        rm.EstimatedReturn(policy, rm.DiCE(), replace(batch, advantages=None))
    with pytest.raises(rm.ArgumentError, match="over: expected"):
        rm.EstimatedReturn(policy, rm.DiCE(), batch, over="tasks")


# ---- PyTorch's double backward -------------------------------------------------------


def torch_value(name, l, frozen):
    """The estimators in PyTorch, with stopped log-probabilities for the old policy."""
    import torch

    q, mask = (torch.from_numpy(np.array(a)) for a in (frozen.q, frozen.mask))
    box = (l - torch.from_numpy(frozen.old)) * mask
    if name == "NaiveSurrogate()":
        return (q * l).sum()
    if name == "Score()":
        return (mask * l).sum()
    if name == "LVC()":
        return (q * box.exp()).sum()
    after = torch.cat([q[:, :, 1:], 0 * q[:, :, :1]], dim=2)
    return ((q - after) * box.cumsum(2).exp()).sum()


def torch_log_probs(net, w, states, actions):
    """log pi of a tanh net with one hidden layer, from flat parameters (T, P)."""
    import torch

    T = len(w)
    S, h, A = net.layers[0].in_features, net.layers[0].out_features, actions.shape[-1]
    sizes = [h * S, h, A * h, A, A]
    W1, b1, W2, b2, l = torch.split(w, sizes, dim=1)
    x = torch.from_numpy(states).reshape(T, -1, S)
    hidden = torch.tanh(x @ W1.reshape(T, h, S).mT + b1[:, None])
    mu = hidden @ W2.reshape(T, A, h).mT + b2[:, None]
    sigma = l.exp()[:, None].expand(mu.shape)
    density = torch.distributions.Normal(mu, sigma)
    given = torch.from_numpy(actions).reshape(T, -1, A)
    return density.log_prob(given).sum(2).reshape(states.shape[:-1])


@by_name
@pytest.mark.frameworks("torch")
def test_products_are_pytorch_s_double_backward(estimator):
    import torch

    objective, w, v = case(estimator)
    batch, at = objective.batch, torch.from_numpy(w).requires_grad_()
    l = torch_log_probs(objective.policy.net, at, batch.states, batch.actions)
    value = torch_value(repr(estimator), l, objective.frozen)
    (g,) = torch.autograd.grad(value, at, create_graph=True)
    (Hv,) = torch.autograd.grad((g * torch.from_numpy(v)).sum(), at)
    here = objective.primal(w)
    assert off(here.grad, g.detach().numpy()) <= TOL
    assert off(objective.hvp(here, v), Hv.numpy()) <= TOL


# ---- planted errors ------------------------------------------------------------------


def planted(name):
    """(class, method, wrong method)"""
    lvc = rm.LVC.r_backward

    def reversed_sums(self, k, saved, c):
        return np.cumsum(saved * np.cumsum(c, axis=2), axis=2)

    return {
        "no second part": (rm.LVC, "r_backward", lambda self, k, saved, c: 0 * c),
        "twice": (rm.LVC, "r_backward", lambda *a: 2 * lvc(*a)),
        "steps alone": (rm.DiCE, "r_backward", lambda self, k, saved, c: saved * c),
        "sums forward": (rm.DiCE, "r_backward", reversed_sums),
        "weights to go": (rm.DiCE, "backward", lambda self, k, saved: saved),
    }[name]


@pytest.mark.parametrize(
    "name", ["no second part", "twice", "steps alone", "sums forward", "weights to go"]
)
def test_planted_errors_are_caught(name, monkeypatch):
    kind, method, wrong = planted(name)
    monkeypatch.setattr(kind, method, wrong)
    test = (
        test_the_gradient_is_the_complex_step_of_the_value
        if method == "backward"
        else test_products_are_the_complex_step_of_the_gradient
    )
    with pytest.raises(AssertionError):
        test(kind(), "trajectories")
