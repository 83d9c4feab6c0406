"""Wrong derivatives of the user's own operations, norms, arrays that do not adapt."""

import pytest
from test_74_doctor_own_loss import check, meta, of_module

import refmaml as rm

pytestmark = pytest.mark.frameworks("torch")


def tanh_function(kind):
    """A tanh as a torch.autograd.Function with a mistake of some kind, or "right"."""
    import torch

    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = torch.tanh(x)
            ctx.save_for_backward(y)
            ctx.y = y.detach()
            return y

        @staticmethod
        def backward(ctx, dy):
            (y,) = ctx.saved_tensors
            y = ctx.y if kind == "second" else y
            return dy * (1 - y * y) * (1.1 if kind == "first" else 1.0)

    return Tanh.apply


def with_activation(activation):
    from own_loss_regression import regression

    return lambda params, x, y: regression(params, x, y, activation)


def test_a_wrong_second_derivative_of_an_operation_is_named_with_its_function():
    loss = with_activation(tanh_function("second"))
    report = check(meta(loss), loss=loss)
    assert report.diagnosis == (
        "the second derivative of an operation is wrong; the loss's own autograd.Functions: Tanh"
    )
    assert "save_for_backward" in report.fix
    assert any("most in 0.weight" in remark for remark in report.remarks)
    right = with_activation(tanh_function("right"))
    assert check(meta(right), loss=right)


def test_right_code_beside_a_loss_with_a_wrong_second_derivative_is_right():
    loss = with_activation(tanh_function("second"))
    report = check(meta(), loss=loss)
    assert report.ok and report.results[0].worst.error < 1e-10
    assert any("is off by" in remark for remark in report.remarks)
    report = check(meta(create_graph=False), loss=loss)
    assert report.diagnosis.startswith("first-order")


def test_the_module_that_holds_the_operation_is_named():
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Inner(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.act = Inner(torch.tanh), Inner(tanh_function("second"))
            self.norm = nn.LayerNorm(8)

        def forward(self, x):
            return self.act(self.norm(x)) + self.good(x)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), Block(), nn.Linear(8, 2))
    report = check(meta(of_module(net, F.mse_loss)), loss=F.mse_loss, params=net)
    assert report.diagnosis == (
        "the second derivative of an operation is wrong, in the module 1.act (Inner)"
    )


def test_a_wrong_first_derivative_is_found_before_any_method():
    loss = with_activation(tanh_function("first"))
    report = check(meta(loss), loss=loss)
    assert report.verdict == "wrong"
    assert report.diagnosis.startswith("the first derivative of the loss is wrong: off by")


# ---- norms ---------------------------------------------------------------------------


def batch_norm_net(params, x, stuck=None):
    from torch.nn import functional as F

    for i in (0, 2):
        x = F.conv2d(x, params[f"{i}.weight"], params[f"{i}.bias"], padding=1)
        gamma, beta = (stuck or params)[f"{i + 1}.weight"], params[f"{i + 1}.bias"]
        x = F.softplus(F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3))
    return F.linear(x.mean((2, 3)), params["4.weight"], params["4.bias"])


def images():
    """(params, batch) of the net above."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shapes = [(3, 1, 3, 3), (3,), (3,), (3,), (3, 3, 3, 3), (3,), (3,), (3,), (4, 3), (4,)]
        names = [f"{i}.{kind}" for i in range(5) for kind in ("weight", "bias")]
        draw = [0.5 * torch.randn(s, dtype=torch.float64) for s in shapes]
        x = [torch.randn(3, n, 1, 5, 5, dtype=torch.float64) for n in (5, 7)]
        y = [torch.randint(0, 4, (3, n)) for n in (5, 7)]
    return dict(zip(names, draw, strict=True)), (x[0], y[0], x[1], y[1])


def image_loss(params, x, y):
    from torch.nn import functional as F

    return F.cross_entropy(batch_norm_net(params, x), y)


def test_a_norm_that_uses_its_own_weight_is_named():
    import torch
    from torch.nn import functional as F

    def stuck(params, batch):
        theta = {n: p.clone().requires_grad_() for n, p in params.items()}
        losses = []
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = theta
            for _ in range(2):
                value = F.cross_entropy(batch_norm_net(phi, xs, theta), ys)
                g = torch.autograd.grad(
                    value, list(phi.values()), create_graph=True, allow_unused=True
                )
                phi = {
                    n: p if d is None else p - 0.4 * d
                    for (n, p), d in zip(phi.items(), g, strict=True)
                }
            losses.append(F.cross_entropy(batch_norm_net(phi, xq, theta), yq))
        value = torch.stack(losses).mean()
        return dict(zip(theta, torch.autograd.grad(value, list(theta.values())), strict=True))

    params, batch = images()
    own = {"loss": image_loss, "params": params, "batch": batch}
    assert check(meta(image_loss), **own)
    report = check(stuck, **own)
    assert "the inner loop does not adapt" in report.diagnosis and "norms" in report.diagnosis


@pytest.mark.parametrize(
    ("source", "words"),
    [("sets", "over support and query set together"), ("tasks", "of all tasks together"),
     ("support", "normalised with the support set's statistics")],
)  # fmt: skip
def test_statistics_over_too_many_examples_are_named(source, words):
    import torch
    from torch.nn import functional as F

    def part(params, mine, y, others, first):
        """The loss on one set, normalised together with others or with them alone."""
        if source == "support" and not first:
            x = torch.cat([others, mine])
            return F.cross_entropy(normalised_by(params, x, len(others))[len(others) :], y)
        if source == "support":
            return image_loss(params, mine, y)
        return F.cross_entropy(batch_norm_net(params, torch.cat([mine, others]))[: len(mine)], y)

    def fn(params, batch):
        theta = {n: p.clone().requires_grad_() for n, p in params.items()}
        losses = []
        for t, (xs, ys, xq, yq) in enumerate(zip(*batch, strict=True)):
            rest = [i for i in range(len(batch[0])) if i != t]
            support = torch.cat([xs[:0], *(batch[0][i] for i in rest)])
            query = torch.cat([xq[:0], *(batch[2][i] for i in rest)])
            support, query = (support, query) if source == "tasks" else (xq, xs)
            phi = theta
            for _ in range(2):
                value = part(phi, xs, ys, support, True)
                g = torch.autograd.grad(value, list(phi.values()), create_graph=True)
                phi = {n: p - 0.4 * d for (n, p), d in zip(phi.items(), g, strict=True)}
            losses.append(part(phi, xq, yq, query, False))
        value = torch.stack(losses).mean()
        return dict(zip(theta, torch.autograd.grad(value, list(theta.values())), strict=True))

    params, batch = images()
    report = check(fn, loss=image_loss, params=params, batch=batch)
    assert words in report.diagnosis


def normalised_by(params, x, count):
    """The net whose norms take the statistics of the first `count` examples alone."""
    from torch.nn import functional as F

    for i in (0, 2):
        x = F.conv2d(x, params[f"{i}.weight"], params[f"{i}.bias"], padding=1)
        of = x[:count]
        mean, var = of.mean((0, 2, 3)), of.var((0, 2, 3), unbiased=False)
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-3) ** 0.5
        x = x * params[f"{i + 1}.weight"][:, None, None] + params[f"{i + 1}.bias"][:, None, None]
        x = F.softplus(x)
    return F.linear(x.mean((2, 3)), params["4.weight"], params["4.bias"])


def test_an_unknown_mistake_is_placed_on_the_users_own_net():
    def fn(problem, params, batch):
        found = meta(problem.loss, problem.method.inner_lr, 2)(params, batch)
        return {n: g + 0.01 * params[n] ** 3 for n, g in found.items()}

    report = check(fn, rm.MAML(0.4, 2), seconds=2)
    assert report.diagnosis.startswith("no mistake of the dictionary; the first stage that is")
    assert report.stages[0] == ("query gradient", "0.weight")
