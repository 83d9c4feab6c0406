"""Gradients and hypergradients of functions in PyTorch, as users write them."""

import pytest

import refmaml as rm

RIGHT_STEPS = ("momentum and decay", "adam with eps_root", "clipping", "plain")


def steps():
    """{name: (step size, step, step whose graph is cut)}."""
    import torch
    from rules_in_torch import adam, plain, sgd

    def clip(limit, cut=False):
        def step(phi, g, state, t):
            norm = torch.stack([a.norm() for a in g.values()]).norm()
            factor = torch.clamp(limit / (norm + 1e-6), max=1.0)
            return {n: (factor.detach() if cut else factor) * a for n, a in g.items()}

        return step

    momentum = {"momentum": 0.9, "weight_decay": 5e-4}
    root = ((0.9, 0.999), 1e-8, 1e-16)
    return {
        "plain": (0.2, plain, None),
        "momentum and decay": (0.2, sgd(**momentum), sgd(**momentum, detached=True)),
        "adam with eps_root": (0.02, adam(*root), None),
        "clipping": (0.2, clip(0.5), clip(0.5, cut=True)),
    }


def torch_nets():
    """{name: (module, shape of an example, number of classes)} in float64."""
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.norms, self.head = nn.GroupNorm(2, 4), nn.Linear(4, 5)

        def forward(self, x):
            h = torch.nn.functional.gelu(self.norms(self.first(x)))
            return self.head((h + torch.nn.functional.gelu(self.second(h))).mean((2, 3)))

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 5)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.norm, self.head = nn.Linear(3, 12), nn.LayerNorm(4), nn.Linear(4, 5)

        def forward(self, x):
            q, k, v = self.qkv(x).chunk(3, -1)
            mixed = torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v
            return self.head(self.norm(mixed).mean(1))

    torch.manual_seed(0)
    return {
        "residual": (Residual().double(), (1, 8, 8)),
        "recurrent": (Recurrent().double(), (4, 3)),
        "attention": (Attention().double(), (4, 3)),
    }


def unrolled(loss, step, lr, K=3, create=True, weights=None):
    """fn(params, batch) -> (meta-gradient, loss) by autograd, task after task."""
    import torch

    def fn(params, batch):
        torch.manual_seed(0)
        theta = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
        losses = []
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi, state = theta, {}
            for k in range(K):
                inner = torch.autograd.grad(
                    loss(phi, xs, ys), list(phi.values()), create_graph=create
                )
                d = step(phi, dict(zip(phi, inner, strict=True)), state, k + 1)
                phi = {n: p - lr * d[n] for n, p in phi.items()}
            losses.append(loss(phi, xq, yq))
        shares = weights or [1 / len(losses)] * len(losses)
        total = sum(w * value for w, value in zip(shares, losses, strict=True))
        found = torch.autograd.grad(total, list(theta.values()))
        return dict(zip(theta, found, strict=True)), total.detach()

    return fn


@pytest.fixture(scope="module")
def regression():
    """(net, params, batch) of a small tanh net in PyTorch, float64."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    params = {n: p.detach().clone() for n, p in net.named_parameters()}
    shapes = (3, 7, 3), (3, 7, 2), (3, 9, 3), (3, 9, 2)
    return net, params, [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def of_net(net, error):
    from torch.func import functional_call

    return lambda p, x, y: error(functional_call(net, p, (x,)), y)


def squares(z, y):
    return ((z - y) ** 2).mean()


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("name", RIGHT_STEPS)
def test_right_inner_rules_are_right_and_cut_ones_wrong(regression, name):
    net, params, batch = regression
    lr, step, cut = steps()[name]
    loss = of_net(net, squares)
    assert rm.check_gradient(unrolled(loss, step, lr), params, batch).ok
    wrong = unrolled(loss, step, lr, create=False) if cut is None else unrolled(loss, cut, lr)
    assert rm.check_gradient(wrong, params, batch).verdict == "wrong"


@pytest.mark.frameworks("torch")
def test_right_losses_are_right_and_first_order_ones_wrong(regression):
    import torch
    import torch.nn.functional as F

    net, params, batch = regression
    lr, step, _ = steps()["plain"]
    drop = {"p": 0.5, "training": True}
    losses = {
        "BCE": of_net(net, lambda z, y: F.binary_cross_entropy_with_logits(z, (y > 0).double())),
        "Huber": of_net(net, F.huber_loss),
        "dropout": lambda p, x, y: squares(
            F.linear(F.dropout(torch.tanh(F.linear(x, p["0.weight"], p["0.bias"])), **drop),
                     p["2.weight"], p["2.bias"]), y),
    }  # fmt: skip
    for name, loss in losses.items():
        assert rm.check_gradient(unrolled(loss, step, lr), params, batch).ok
        wrong = unrolled(loss, step, lr, create=False)
        assert name == "Huber" or not rm.check_gradient(wrong, params, batch).ok


@pytest.mark.frameworks("torch")
def test_tasks_of_different_sizes_and_weights(regression):
    import torch

    net, params, batch = regression
    lr, step, _ = steps()["plain"]
    loss = of_net(net, squares)
    ragged = [
        [torch.randn(n, d, dtype=torch.float64) for n in sizes]
        for sizes, d in (((4, 9, 5), 3), ((4, 9, 5), 2), ((6, 3, 5), 3), ((6, 3, 5), 2))
    ]
    assert rm.check_gradient(unrolled(loss, step, lr), params, ragged).ok
    assert rm.check_gradient(unrolled(loss, step, lr, weights=[0.2, 0.3, 0.5]), params, batch).ok
    summed = unrolled(loss, step, lr, weights=[1.0, 1.0, 1.0])
    mean = unrolled(loss, step, lr)

    def mixed(p, b):
        return summed(p, b)[0], mean(p, b)[1]

    report = rm.check_gradient(mixed, params, batch)
    assert "a sum over 3 where the loss has a mean" in report.diagnosis


@pytest.mark.frameworks("torch")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual", "recurrent", "attention"])
def test_modules_of_any_kind(name):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    net, shape = torch_nets()[name]
    params = dict(net.named_parameters())  # they require grad, as a user's do
    batch = [
        torch.randn(3, 7, *shape, dtype=torch.float64), torch.randint(0, 5, (3, 7)),
        torch.randn(3, 9, *shape, dtype=torch.float64), torch.randint(0, 5, (3, 9)),
    ]  # fmt: skip
    lr, step, _ = steps()["plain"]
    loss = of_net(net, lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1))
    assert rm.check_gradient(unrolled(loss, step, lr, K=2), params, batch).ok
    wrong = unrolled(loss, step, lr, K=2, create=False)
    assert rm.check_gradient(wrong, params, batch).verdict == "wrong"


@pytest.mark.frameworks("torch")
def test_a_module_that_keeps_its_own_parameters_is_found(regression):
    import torch

    net, params, batch = regression

    def own(p, b):
        loss = squares(net(b[0][0]), b[1][0])
        return torch.autograd.grad(loss, list(net.parameters())), loss

    def fn(p, b):
        g, loss = own(p, b)
        return dict(zip(p, g, strict=True)), loss

    report = rm.check_gradient(fn, params, batch)
    assert report.verdict == "wrong" and "does not depend on params" in report.diagnosis


@pytest.mark.frameworks("torch")
def test_a_module_and_mixed_precisions_are_one_line(regression):
    import torch

    net, params, batch = regression
    with pytest.raises(rm.ArgumentError, match="params: expected numbers in a container, such as"):
        rm.check_gradient(lambda p: (p, 1.0), net)
    single = torch.ones(3)

    def fn(p):
        return {"w": 2 * single}, (p["w"] @ single) ** 2

    with pytest.raises(rm.ArgumentError, match='precision="float32" passes float32 numbers'):
        rm.check_gradient(fn, {"w": torch.ones(3)})

    def right(p):
        return {"w": 2 * (p["w"] @ single) * single}, (p["w"] @ single) ** 2

    assert rm.check_gradient(right, {"w": torch.ones(3)}, precision="float32").ok


@pytest.mark.frameworks("torch")
def test_one_step_size_in_pytorch(regression):
    import torch

    net, params, batch = regression
    loss = of_net(net, squares)

    def fn(values, raw=lambda lr: lr, cut=False, name="inner_lr"):
        setting = values[name].clone().requires_grad_()
        lr, theta = raw(setting), {n: p.clone().requires_grad_() for n, p in params.items()}
        losses = []
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = theta
            for _ in range(3):
                g = torch.autograd.grad(loss(phi, xs, ys), list(phi.values()), create_graph=not cut)
                phi = {n: p - lr * d for (n, p), d in zip(phi.items(), g, strict=True)}
            losses.append(loss(phi, xq, yq))
        total = torch.stack(losses).mean()
        g = torch.autograd.grad(total, [*theta.values(), setting])
        named = dict(zip([*theta, name], g, strict=True))
        return named, total  # theta's gradients are not read

    values = {"inner_lr": torch.tensor(0.1)}
    assert rm.check_hypergradient(fn, values).ok
    assert rm.check_hypergradient(lambda v: fn(v, cut=True), values).verdict == "wrong"

    def divided(v):  # softplus' is left out
        g, total = fn(v, raw=torch.nn.functional.softplus)
        return {"inner_lr": g["inner_lr"] / torch.sigmoid(v["inner_lr"])}, total

    assert rm.check_hypergradient(
        lambda v: fn(v, raw=torch.exp), {"inner_lr": torch.tensor(-2.0)}
    ).ok
    report = rm.check_hypergradient(divided, {"inner_lr": torch.tensor(-2.0)})
    assert "lacks the factor softplus'(raw)" in report.diagnosis
