"""Modules of PyTorch as nets: the same names, outputs, losses and meta-gradients; one
line for what cannot be converted."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.autodiff.torch_autodiff import torch_meta_gradient

pytestmark = pytest.mark.frameworks("torch")

# Two programs that add the same float64 numbers in different orders: measured below
# 1e-14, and 1e-13 after two inner steps. The bounds leave room for other releases.
SAME_OUTPUTS, SAME_META_GRADIENT = 1e-12, 1e-11
INNER_LR, STEPS, TASKS = 0.05, 2, 3


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(params=MODULES, ids=lambda make: make.__name__)
def case(request):
    """(module, net), their parameters moved away from all starting values."""
    import torch

    module = request.param()
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for p in module.parameters():
            p += torch.from_numpy(0.1 * rng.standard_normal(tuple(p.shape))).float()
    return module, rm.from_torch(module, MODULES[request.param])


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


def test_the_names_are_those_of_the_module(case):
    module, net = case
    assert set(net.shapes) == {name for name, _ in module.named_parameters()}
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == net.shapes


def test_the_names_of_a_sequential_have_its_order():
    module = nested()
    assert list(rm.from_torch(module, (2, 8, 6)).shapes) == [
        n for n, _ in module.named_parameters()
    ]


def test_outputs_loss_and_gradient_are_those_of_the_module(case):
    import torch

    module, net = case
    x, y = data(net, np.random.default_rng(0))
    primal = net.primal(net.flat(module.state_dict(), np.float64)[None], x, y)
    module.double()
    for t, task in enumerate(zip(x, y, strict=True)):
        inputs, labels = map(torch.from_numpy, task)
        module.zero_grad()
        loss = module_loss(module, {}, inputs, labels)
        loss.backward()
        grad = net.flat({name: p.grad for name, p in module.named_parameters()})
        assert error(primal.outputs[t], module(inputs).detach().numpy()) < SAME_OUTPUTS
        assert abs(primal.loss[t] - loss.item()) < SAME_OUTPUTS * loss.item()
        assert error(primal.grad[t], grad) < SAME_OUTPUTS


@pytest.mark.parametrize("loss", ["labels", "values"])
def test_the_meta_gradient_is_that_of_a_loop_on_the_module(case, loss):
    module, net = case
    net = net if loss == "labels" else net.with_loss(rm.MSE())
    rng = np.random.default_rng(1)
    sets = *data(net, rng, loss=loss), *data(net, rng, 6, loss)
    theta = net.flat(module.state_dict(), np.float64)
    grad = rm.MAML(INNER_LR, STEPS).meta_gradient(net, theta, rm.Batch(*sets)).grad
    reference = module_meta_gradient(module.double(), net.named(theta), *sets)
    right = error(grad, net.flat(reference))
    first = rm.FirstOrderMAML(INNER_LR, STEPS).meta_gradient(net, theta, rm.Batch(*sets)).grad
    print(f"error {right:.1e}, first-order {error(first, net.flat(reference)):.1e}")
    assert right < SAME_META_GRADIENT and error(first, net.flat(reference)) > 1e-3
    oracle = torch_meta_gradient(net, theta, rm.Batch(*sets), INNER_LR, STEPS)
    assert error(grad, oracle) < SAME_META_GRADIENT


def test_parameters_go_there_and_back(case):
    import torch

    module, net = case
    theta = net.flat(module.state_dict())
    assert theta.dtype == np.float32
    moved = {name: torch.from_numpy(a) for name, a in net.named(theta + 1).items()}
    assert not module.load_state_dict(moved, strict=False).unexpected_keys
    assert np.array_equal(net.flat(module.state_dict()), theta + 1)


def test_the_module_and_torchs_random_numbers_stay_as_they_were():
    import torch

    module = nested()
    before = {name: a.clone() for name, a in module.state_dict().items()}
    state = torch.get_rng_state()
    rm.from_torch(module, (2, 8, 6))
    assert torch.equal(state, torch.get_rng_state()) and module.training
    assert all(torch.equal(a, before[name]) for name, a in module.state_dict().items())
    assert next(module.parameters()).dtype == torch.float32


def test_a_net_has_the_kernels_and_the_loss_that_are_given():
    from torch import nn

    net = rm.from_torch(vectors(), (4,), nn.MSELoss(reduction="sum"), "cpu")
    assert net.loss_function == rm.MSE("sum") and net.kernels.name == "cpu"
    net = rm.from_torch(vectors(), [4], rm.CrossEntropy("sum/K"))
    assert net.loss_function == rm.CrossEntropy("sum/K") and net.input_shape == (4,)
    assert rm.from_torch(vectors(), (4,), nn.CrossEntropyLoss()).loss_function == rm.CrossEntropy()


# ---- layers of torch.nn by their class name ------------------------------------------


def later_layers():
    """Layers of torch.nn that are converted by their names: {name: (layer, shape)}."""
    from torch import nn

    return {
        "GroupNorm": (nn.GroupNorm(2, 4), (4, 3, 2)),
        "LayerNorm": (nn.LayerNorm([4, 3, 2], eps=1e-3), (4, 3, 2)),
        "InstanceNorm2d": (nn.InstanceNorm2d(4, affine=True), (4, 3, 2)),
        "Sigmoid": (nn.Sigmoid(), (6,)),
        "GELU": (nn.GELU(), (6,)),
        "SiLU": (nn.SiLU(), (6,)),
        "ELU": (nn.ELU(0.7), (6,)),
        "Softmax": (nn.Softmax(dim=-1), (6,)),
        "LogSoftmax": (nn.LogSoftmax(dim=1), (6,)),
        "Dropout": (nn.Dropout(0.3), (6,)),
    }


LATER = (
    "GroupNorm", "LayerNorm", "InstanceNorm2d", "Sigmoid", "GELU", "SiLU", "ELU", "Softmax",
    "LogSoftmax", "Dropout",
)  # fmt: skip


@pytest.mark.parametrize("name", LATER)
def test_a_layer_is_converted_where_refmaml_has_it_and_named_where_not(name):
    from torch import nn

    layer, shape = later_layers()[name]
    size = int(np.prod(shape))
    module = nn.Sequential(
        layer, nn.Flatten(), nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 3)
    )
    if not hasattr(rm.layers, name):
        with pytest.raises(rm.ArgumentError, match=rf"layer '0'.*nn\.{name}"):
            rm.from_torch(module, shape)
        return
    net = rm.from_torch(module, shape)
    assert type(net.layers[0]).__name__ == name
    if name == "Dropout":
        assert net.layers[0].p == 0.3
        return
    rng = np.random.default_rng(2)
    sets = *data(net, rng), *data(net, rng)
    theta = net.flat(module.state_dict(), np.float64) + 0.1 * rng.standard_normal(net.num_params)
    grad = rm.MAML(INNER_LR, STEPS).meta_gradient(net, theta, rm.Batch(*sets)).grad
    reference = module_meta_gradient(module.double(), net.named(theta), *sets)
    assert error(grad, net.flat(reference)) < SAME_META_GRADIENT
