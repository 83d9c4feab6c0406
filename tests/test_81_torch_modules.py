"""Modules of PyTorch as nets: the same names, outputs, losses and meta-gradients."""

import numpy as np
import pytest
from torch_modules import (
    INNER_LR,
    MODULES,
    SAME_META_GRADIENT,
    SAME_OUTPUTS,
    STEPS,
    data,
    error,
    module_loss,
    module_meta_gradient,
    nested,
    vectors,
)

import refmaml as rm
from refmaml.autodiff.torch_autodiff import torch_meta_gradient

pytestmark = pytest.mark.frameworks("torch")


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
