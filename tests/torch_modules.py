"""Modules of PyTorch for the tests of from_torch, and MAML on them by autograd."""

import numpy as np

# Two programs that add the same float64 numbers in different orders: measured below
# 1e-15, two inner steps included. The bounds leave room for other releases.
SAME_OUTPUTS, SAME_META_GRADIENT = 1e-12, 1e-11
INNER_LR, STEPS, TASKS = 0.05, 2, 3


# ---- modules -------------------------------------------------------------------------


def nested():
    from torch import nn

    block = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=(1, 0)), nn.BatchNorm2d(4))
    return nn.Sequential(
        block, nn.Sequential(nn.Identity(), nn.Tanh()), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8, 3),
    )  # fmt: skip


def functions():
    """Layers and functions of which the children and their order say nothing."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Functions(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 3)  # used last
            self.norm = nn.BatchNorm2d(4, eps=1e-3, affine=False)
            self.act = nn.LeakyReLU(0.2)
            self.features = nn.Conv2d(2, 4, 3, padding="same", bias=False)
            self.hidden = nn.Linear(16, 8)

        def forward(self, x, params=None):
            x = self.features(x) if params is None else None
            x = F.avg_pool2d(self.act(self.norm(x)), 3, stride=2)
            x = F.softplus(torch.tanh(self.act(x)))
            x = F.dropout(x.view(x.size(0), -1), 0.5, training=False)
            return self.head(F.leaky_relu(self.hidden(x), 0.3).tanh())

    return Functions()


def pooled():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="valid"), nn.ReLU(),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3, bias=False),
    )  # fmt: skip


def vectors():
    from torch import nn

    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Softplus(), nn.Linear(6, 3))


MODULES = {nested: (2, 8, 6), functions: (2, 5, 5), pooled: (2, 5, 6), vectors: (4,)}


def data(net, rng, examples=5, loss="labels"):
    x = rng.standard_normal((TASKS, examples, *net.input_shape))
    if loss == "labels":
        return x, rng.integers(0, 3, (TASKS, examples))
    return x, rng.standard_normal((TASKS, examples, 3))


def error(ours, reference):
    """max|ours - reference| / max|reference|."""
    assert ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


# ---- an inner loop of PyTorch's own, on the module itself ----------------------------


def module_loss(module, params, x, y):
    import torch
    from torch.nn import functional as F

    z = torch.func.functional_call(module, params, (x,))
    return F.mse_loss(z, y) if y.is_floating_point() else F.cross_entropy(z, y)


def module_meta_gradient(module, theta, *sets):
    """{name: (shape)} by autograd, for MAML; no formula of refmaml is in it."""
    import torch

    start = {name: torch.tensor(a, requires_grad=True) for name, a in theta.items()}
    losses = []
    for x_support, y_support, x_query, y_query in zip(*map(torch.from_numpy, sets), strict=True):
        phi = start
        for _ in range(STEPS):
            loss = module_loss(module, phi, x_support, y_support)
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            pairs = zip(phi.items(), grads, strict=True)
            phi = {name: p - INNER_LR * g for (name, p), g in pairs}
        losses.append(module_loss(module, phi, x_query, y_query))
    grads = torch.autograd.grad(torch.stack(losses).mean(), list(start.values()))
    return {name: g.numpy() for name, g in zip(start, grads, strict=True)}
