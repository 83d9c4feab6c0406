"""Solved heads in PyTorch in float64: its autodiff goes through the same solves."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles.solved_head_checks import regression_net, start
from refmaml.oracles.tolerance import relative_error

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.frameworks("torch")
SAME = 1e-11  # two libraries' solves of systems with condition numbers up to some hundred


def logistic(X, Y, strength, steps=40):
    """W (F, C): Newton steps until nothing changes, all of them in the graph."""
    columns = []
    for y in Y.T:
        w = torch.zeros(X.shape[1], dtype=X.dtype)
        for _ in range(steps):
            mu = torch.sigmoid(X @ w)
            H = X.T @ ((mu * (1 - mu))[:, None] * X) + strength * torch.eye(X.shape[1]).to(X)
            w = w - torch.linalg.solve(H, X.T @ (mu - y) + strength * w)
        columns.append(w)
    return torch.stack(columns, dim=1)


def ridge(X, Y, strength):
    return torch.linalg.solve(X.T @ X + strength * torch.eye(X.shape[1]).to(X), X.T @ Y)


def features(parameters, x):
    """The body of regression_net() and of its classifying twin."""
    return torch.tanh(x @ parameters["0.weight"].T + parameters["0.bias"])


def named(net, meta):
    return {n: meta[p].reshape(net.shapes[n]) for n, p in net.parameters.slices.items()}


def solved(weights):
    """M of one task for R2-D2 and LR-D2."""

    def loss(net, meta, xs, ys, xq, yq):
        parameters, (ell, alpha, beta) = named(net, meta), meta[net.num_params :]
        Y = torch.nn.functional.one_hot(ys).to(meta)
        W = weights(features(parameters, xs), Y, torch.exp(ell))
        z = alpha * features(parameters, xq) @ W + beta
        return torch.nn.functional.cross_entropy(z, yq)

    return loss


def alpaca(net, meta, xs, ys, xq, yq):
    """M of one task for ALPaCA, by torch.distributions."""
    parameters = named(net, meta)
    X, Q = (features(parameters, x) for x in (xs, xq))
    X, Q = (torch.cat([a, torch.ones_like(a[:, :1])], dim=1) for a in (X, Q))
    W0 = torch.cat([parameters["2.weight"], parameters["2.bias"][:, None]], dim=1)
    L, v = meta[net.num_params : -1].reshape(len(W0.T), -1), torch.exp(meta[-1])
    A = X.T @ X + L @ L.T
    W = torch.linalg.solve(A, X.T @ ys + L @ L.T @ W0.T)
    s = 1 + (Q * torch.linalg.solve(A, Q.T).T).sum(dim=1, keepdim=True)
    normal = torch.distributions.Normal(Q @ W, torch.sqrt(v * s))
    return -normal.log_prob(yq).sum(dim=1).mean()


def classifier():
    return rm.Sequential([rm.Linear(5, 8), rm.Tanh(), rm.Linear(8, 3)], rm.CrossEntropy(), (5,))


CASES = {
    "R2-D2": (rm.R2D2(0.75, 1.75, 0.25), classifier(), solved(ridge)),
    "LR-D2": (rm.LRD2(0.75, 1.75, 0.25, newton_steps=30), classifier(), solved(logistic)),
    "ALPaCA": (rm.ALPaCA(0.75, 0.25), regression_net(), alpaca),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_and_product_are_those_of_autodiff(name):
    torch.set_num_threads(1)
    method, net, loss = CASES[name]
    meta, batch = start(method, net)
    tasks = [[torch.from_numpy(a[t]) for a in batch.arrays] for t in range(len(batch))]
    v = np.random.default_rng(1).standard_normal(len(meta))

    def M(m):
        return sum(loss(net, m, *task) for task in tasks) / len(tasks)

    at = torch.tensor(meta, requires_grad=True)
    value = M(at)
    (grad,) = torch.autograd.grad(value, at, create_graph=True)
    (product,) = torch.autograd.grad(grad @ torch.from_numpy(v), at)
    unused = torch.zeros(len(meta), dtype=torch.bool)
    unused[: net.num_params] = torch.from_numpy(net.mask(("head",)).copy()) & (name != "ALPaCA")
    out = method.meta_gradient(net, meta, batch)
    assert abs(out.loss - value.item()) < SAME * abs(out.loss)
    assert relative_error(out.grad, grad.detach().numpy()) < SAME
    assert relative_error(method.hvp(net, meta, batch, v), product.numpy()) < SAME
    assert (out.grad[unused.numpy()] == 0).all()


def test_the_difference_is_seen():
    """The same comparison refuses twice the ridge solution."""
    method, net, _ = CASES["R2-D2"]
    meta, batch = start(method, net)
    tasks = [[torch.from_numpy(a[t]) for a in batch.arrays] for t in range(len(batch))]
    twice = solved(lambda X, Y, strength: 2 * ridge(X, Y, strength))
    at = torch.tensor(meta, requires_grad=True)
    value = sum(twice(net, at, *task) for task in tasks) / len(tasks)
    (grad,) = torch.autograd.grad(value, at)
    assert relative_error(method.meta_gradient(net, meta, batch).grad, grad.numpy()) > 1e-2
