"""What users write in their own inner loops, written with refmaml alone."""

import numpy as np
import pytest
from test_45_rules_in_torch import small_case

import refmaml as rm
from refmaml.oracles.tolerance import relative_error

LR, K = 0.1, 3


def by_torch(step, lr=LR, steps=K, **options):
    from rules_in_torch import meta_gradient

    return meta_gradient(*small_case(), step, lr, steps, **options)


def ours(rule=None, lr=LR, steps=K, **options):
    rule = rule or rm.UpdateRule()
    return rm.MAML(lr, steps, rule=rule, **options).meta_gradient(*small_case()).grad


@pytest.mark.frameworks("torch")
def test_adam_with_torch_s_defaults():
    from rules_in_torch import adam

    assert relative_error(ours(rm.Adam()), by_torch(adam((0.9, 0.999), 1e-8))) < 1e-11


@pytest.mark.frameworks("torch")
def test_adam_with_eps_root_beside_the_corrected_moment():
    from rules_in_torch import adam

    step = adam((0.9, 0.999), 1e-8, eps_root=1e-8)
    assert relative_error(ours(rm.Adam(eps_root=1e-8)), by_torch(step)) < 1e-11


class UncorrectedRoot(rm.Adam):
    """Adam whose root is sqrt((v + eps_root) / c2), as some inner loops have it."""

    def moments(self, net, phi, g, state, factors):
        a = super().moments(net, phi, g, state, factors)
        r = net.kernels.xp.sqrt((a.v + self.eps_root) / factors[1])
        return a._replace(r=r, D=r + self.eps)


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("eps_root", [1e-16, 1e-8, 1e-3])
def test_adam_with_eps_root_beside_the_moment_before_its_correction(eps_root):
    """One function of a subclass; d/dv of the root is 1/(2 r c2) in both places."""
    from rules_in_torch import adam

    truth = by_torch(adam((0.9, 0.999), 1e-8, eps_root=eps_root, root="inside"))
    assert relative_error(ours(UncorrectedRoot(eps_root=eps_root)), truth) < 1e-11
    if eps_root == 1e-3:  # the two places differ
        assert relative_error(ours(rm.Adam(eps_root=eps_root)), truth) > 0.01


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 5e-4},
        {"momentum": 0.9, "nesterov": True},
    ],
    ids=str,
)
def test_momentum_right_and_with_its_buffer_detached(settings):
    from rules_in_torch import sgd

    assert relative_error(ours(rm.SGD(**settings)), by_torch(sgd(**settings))) < 1e-11
    assert relative_error(ours(rm.SGD(**settings)), by_torch(sgd(**settings, detached=True))) > 0.01


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("limit", [0.1, 50.0])
def test_clipping_by_norm_and_by_value(limit):
    from rules_in_torch import clip, plain

    for options in ({"norm": limit}, {"norm": limit, "per_tensor": True}, {"value": limit}):
        truth = by_torch(clip(plain, **options))
        assert relative_error(ours(rm.Clip(**options)), truth) < 1e-11, options
    if limit == 50.0:  # never reached
        assert np.array_equal(ours(rm.Clip(norm=limit)), ours())


@pytest.mark.frameworks("torch")
def test_mini_batches_a_cosine_schedule_and_a_proximal_term():
    from rules_in_torch import plain

    method = rm.MAML(LR, K, inner_batch=3, order_seed=5)
    truth = by_torch(plain, sets=method.mini_batches(6))
    assert relative_error(ours(inner_batch=3, order_seed=5), truth) < 1e-11
    cosine = tuple(LR * 0.5 * (1 + np.cos(np.pi * k / K)) for k in range(K))
    assert relative_error(ours(lr=cosine), by_torch(plain, lr=cosine)) < 1e-11
    assert relative_error(ours(anchor=0.1), by_torch(plain, anchor=0.1)) < 1e-11


class EveryOther(rm.MAML):
    """Step k sees the examples k, k + 2, k + 4, ...: a choice that no seed makes."""

    def places(self, net, examples):
        return [np.arange(k, examples, 2) for k in range(self.inner_steps)]


@pytest.mark.frameworks("torch")
def test_mini_batches_that_a_user_chooses():
    from rules_in_torch import plain

    truth = by_torch(plain, sets=[np.arange(k, 6, 2) for k in range(K)])
    out = EveryOther(LR, K).meta_gradient(*small_case())
    assert relative_error(out.grad, truth) < 1e-11


@pytest.mark.frameworks("torch")
def test_the_hypergradient_of_one_step_size():
    import torch

    lr = torch.tensor(LR, dtype=torch.float64, requires_grad=True)
    from rules_in_torch import plain

    truth, slope = by_torch(plain, lr=lr, extra=(lr,))
    out = rm.MAML(LR, K).meta_gradient(*small_case(), hyper=True)
    assert relative_error(out.grad, truth) < 1e-11
    assert abs(out.hyper["inner_lr"] / slope - 1) < 1e-11


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_the_hypergradient_of_a_ridge_penalty(strength):
    """Autograd through the normal equations, which iMAML's inner problem solves."""
    import torch

    rng = np.random.default_rng(0)
    X, y, Xq, yq = (rng.standard_normal(s) for s in ((20, 6), (20, 1), (15, 6), (15, 1)))
    X_, y_, Xq_, yq_ = map(torch.from_numpy, (X, y, Xq, yq))
    lam = torch.tensor(strength, dtype=torch.float64, requires_grad=True)
    w = torch.linalg.solve(X_.T @ X_ / 20 + lam * torch.eye(6).double(), X_.T @ y_ / 20)
    (slope,) = torch.autograd.grad(((Xq_ @ w - yq_) ** 2).mean() / 2, lam)
    net = rm.Sequential([rm.Linear(6, 1, bias=False)], rm.MSE(factor=0.5), (6,))
    method = rm.IMAML(strength, inner_steps=20, solver="newton_cg", cg_steps=30, cg_tol=1e-14)
    batch = rm.Batch(X[None], y[None], Xq[None], yq[None])
    out = method.meta_gradient(net, np.zeros(6), batch, hyper=True)
    assert abs(out.hyper["regularization"] / slope.item() - 1) < 1e-11
