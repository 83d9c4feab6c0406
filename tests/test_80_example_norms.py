"""GroupNorm, LayerNorm and InstanceNorm2d against PyTorch's own modules, in float64."""

import numpy as np
import pytest
from example_norms import CASES, NETS

import refmaml as rm
from refmaml import kernels
from refmaml.autodiff import jax_formulas
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error

pytestmark = pytest.mark.frameworks("torch")
K = kernels.reference()
AGREES = 1e-11  # test_80_autodiff.py says why


def module(layer):
    """PyTorch's module of a layer."""
    from torch import nn

    if isinstance(layer, rm.LayerNorm):
        made = nn.LayerNorm(
            layer.normalized_shape, layer.eps, layer.elementwise_affine, bias=layer.bias
        )
    elif isinstance(layer, rm.GroupNorm):
        made = nn.GroupNorm(layer.num_groups, layer.num_channels, layer.eps, layer.affine)
    else:
        made = nn.InstanceNorm2d(layer.num_features, layer.eps, affine=layer.affine)
    return made.double()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_all_four_passes_agree_with_pytorch(case):
    """Its module by name, its backward pass, and the derivative of that."""
    import torch
    from torch.func import functional_call

    layer, theirs = case.layer, module(case.layer)
    assert {n: tuple(a.shape) for n, a in theirs.state_dict().items()} == layer.shapes()
    rng = np.random.default_rng(0)
    w, x = cases.layer_inputs(case, rng)
    w, x = {n: a[:1] for n, a in w.items()}, x[:1]
    rw = {n: rng.standard_normal(a.shape) for n, a in w.items()}
    rx, dy, rdy = (rng.standard_normal(x.shape) for _ in range(3))
    dw, rdw = ({n: np.empty_like(a) for n, a in w.items()} for _ in range(2))
    y, saved = layer.forward(K, w, x)
    dx = layer.backward(K, dw, w, saved, dy)
    ry, rsaved = layer.r_forward(K, w, rw, saved, rx)
    rdx = layer.r_backward(K, rdw, w, rw, saved, rsaved, dy, rdy)

    def tensors(*arrays, track=True):
        return [torch.tensor(a[0], requires_grad=track) for a in arrays]

    inputs = tensors(x, *w.values())
    out = functional_call(theirs, dict(zip(w, inputs[1:], strict=True)), inputs[0])
    (t_dy,), (t_rdy,) = tensors(dy), tensors(rdy, track=False)
    first = torch.autograd.grad(out, inputs, t_dy, create_graph=True)
    moves = tensors(rx, *rw.values(), track=False)
    along = sum((a * b).sum() for a, b in zip(first, moves, strict=True))
    t_ry, *curved = torch.autograd.grad(
        along, [t_dy, *inputs], retain_graph=True, materialize_grads=True
    )
    linear = torch.autograd.grad(out, inputs, t_rdy)
    ours = [y, ry, dx, *dw.values(), rdx, *rdw.values()]
    torchs = [out, t_ry, *first, *(a + b for a, b in zip(curved, linear, strict=True))]
    for a, b in zip(ours, torchs, strict=True):
        assert relative_error(a[0], b.detach().numpy()) < AGREES


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_gradient_of_maml_agrees_with_pytorchs(net):
    from refmaml.autodiff.torch_autodiff import torch_meta_gradient

    rng = np.random.default_rng(1)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    method = rm.MAML(0.1, 3)
    exact = torch_meta_gradient(net, theta, batch, 0.1, 3)
    assert relative_error(method.meta_gradient(net, theta, batch).grad, exact) < AGREES


@pytest.mark.parametrize(
    "layer", [rm.GroupNorm(1, 2), rm.LayerNorm((2, 3, 3)), rm.Context(1), rm.Softmax()], ids=str
)
def test_the_fast_formulas_of_jax_refuse_layers_that_read_channels_first(layer):
    outputs = layer.output_shape((2, 3, 3))
    net = rm.Sequential([layer, rm.SpatialMean(), rm.Linear(outputs[0], 2)], None, (2, 3, 3))
    with pytest.raises(rm.ArgumentError, match="net: expected layers with a formula"):
        jax_formulas.make_loss(net, jax_formulas.conv2d)
