"""MAML++ with batch-norm parameters of their own for each inner step."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.methods import per_step_norm

K, STEP = 3, 1e-30
METHOD = rm.MAMLPlusPlus(0.1, K, loss_weights=(0.2, 0.3, 0.5), per_step_norm=True)
NET = rm.Sequential(
    [rm.Conv2d(1, 3, 3, padding=1), rm.BatchNorm2d(3), rm.Softplus(), rm.Conv2d(3, 2, 3),
     rm.BatchNorm2d(2), rm.Tanh(), rm.Flatten(), rm.Linear(8, 3)],
    rm.CrossEntropy(), (1, 4, 4),
)  # fmt: skip
P, L = NET.num_params, len(NET.blocks)


def problem():
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, 6, 1, 4, 4)), rng.standard_normal((2, 9, 1, 4, 4))
    y, u = np.tile(np.arange(6) % 3, (2, 1)), np.tile(np.arange(9) % 3, (2, 1))
    meta = METHOD.init(NET, NET.init(0, float))
    return meta + 0.1 * rng.standard_normal(meta.shape), rm.Batch(x, y, z, u)


def objective(meta, batch):
    """M by its definition, one task and one step at a time, without a Hessian."""
    places = np.concatenate([np.arange(NET.num_params)[NET.mask(("BatchNorm2d",))]])
    alphas, norms = meta[P : P + K * L].reshape(K, L), meta[P + K * L :].reshape(K - 1, -1)
    total = 0
    for t in range(len(batch)):
        task, phi = batch[t : t + 1], meta[:P].copy()
        for k, weight in enumerate(METHOD.loss_weights):
            phi[places] = norms[k - 1] if k else meta[:P][places]
            g = NET.gradient(phi[None], task.x_support, task.y_support)[0]
            for l, part in enumerate(NET.blocks):
                phi[part] = phi[part] - alphas[k, l] * g[part]
            phi[places] = norms[k - 1] if k else meta[:P][places]
            total = total + weight * NET.loss(phi[None], task.x_query, task.y_query)[0]
    return total / len(batch)


def worst_error():
    """The largest error of dM/dmeta along a direction in each of its three parts."""
    meta, batch = problem()
    grad, rng = METHOD.meta_gradient(NET, meta, batch).grad, np.random.default_rng(1)
    errors = []
    for part in (slice(0, P), slice(P, P + K * L), slice(P + K * L, None)):
        v = np.zeros(meta.shape)
        v[part] = rng.standard_normal(v[part].shape)
        exact = objective(meta + 1j * STEP * v, batch).imag / STEP
        errors.append(abs(grad @ v - exact) / abs(exact))
    return max(errors)


def test_the_meta_gradient_is_the_complex_step():
    assert worst_error() <= 1e-12
    meta, batch = problem()
    assert abs(METHOD.meta_gradient(NET, meta, batch).loss - objective(meta, batch)) <= 1e-14


def test_without_its_own_arrays_for_each_step_it_is_maml_plus_plus_with_frozen_norms():
    meta, batch = problem()
    shared = rm.MAMLPlusPlus(0.1, K, frozen=("BatchNorm2d",), loss_weights=METHOD.loss_weights)
    theta = meta[:P]
    equal = METHOD.init(NET, theta)
    mine = METHOD.meta_gradient(NET, equal, batch)
    theirs = shared.meta_gradient(NET, shared.init(NET, theta), batch)
    assert abs(mine.loss - theirs.loss) <= 1e-14
    places = NET.mask(("BatchNorm2d",))
    total = mine.grad[:P][places] + mine.grad[P + K * L :].reshape(K - 1, -1).sum(axis=0)
    assert np.abs(total - theirs.grad[:P][places]).max() <= 1e-13
    assert np.abs(mine.grad[:P] - theirs.grad[:P])[~places].max() <= 1e-13


def test_one_step_has_no_further_arrays():
    method = rm.MAMLPlusPlus(0.1, 1, per_step_norm=True)
    assert len(method.init(NET, NET.init(0, float))) == P + L


ERRORS = {
    "the product's block is forgotten": ("step", lambda right: lambda net, a, A, b: np.where(
        NET.mask(("BatchNorm2d",)), a, right(net, a, A, b))),
    "b_k is never put into phi": ("with_norm", lambda right: lambda net, phi, places, b: (
        phi.copy())),
    "the query loss has the wrong weight": ("query_pass", lambda right: lambda net, phi, batch: (
        _scaled(right(net, phi, batch)))),
}  # fmt: skip


def _scaled(primal):
    from dataclasses import replace

    return replace(primal, grad=1.001 * primal.grad)


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_found(error, monkeypatch):
    name, wrong = ERRORS[error]
    monkeypatch.setattr(per_step_norm, name, wrong(getattr(per_step_norm, name)))
    assert worst_error() > 1e-6


@pytest.mark.parametrize("options", [{"rule": rm.SGD(0.9)}, {"anchor": 0.1}, {"inner_batch": 2}])
def test_it_is_for_plain_gradient_descent(options):
    with pytest.raises(rm.ArgumentError, match="per_step_norm: expected False beside"):
        rm.MAMLPlusPlus(0.1, K, per_step_norm=True, **options)


def test_adapt_ends_where_the_meta_gradient_does():
    meta, batch = problem()
    phi = METHOD.adapt(NET, meta, *batch.sets[0])
    last = NET.loss(phi, *batch.sets[1])
    only = rm.MAMLPlusPlus(0.1, K, loss_weights=(0, 0, 1), per_step_norm=True)
    assert np.abs(last - only.meta_gradient(NET, meta, batch).task_losses).max() <= 1e-14
