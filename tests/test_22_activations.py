"""Sigmoid, SiLU, GELU, ELU, Softmax and LogSoftmax: PyTorch's own functions, every
kernel set, and a meta-gradient through each.

test_20_layers.py checks their passes, and test_22_planted_activation_errors.py plants
errors in their formulas.
"""

import copy
import pickle
from dataclasses import fields

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from kernel_passes import draws, passes, worst

import refmaml as rm
from refmaml import kernels
from refmaml.execution.fusion import plan
from refmaml.kernels.activation.functions import NUMBERS
from refmaml.oracles import cases, meta_objectives, method_checks

K = kernels.reference()
ELEMENTWISE = [rm.Sigmoid(), rm.SiLU(), rm.GELU(), rm.GELU("tanh"), rm.ELU(), rm.ELU(0.3)]
OVER_A_DIMENSION = [rm.Softmax(), rm.LogSoftmax(), rm.Softmax(-2), rm.LogSoftmax(-2)]
EVERY = [*ELEMENTWISE, *OVER_A_DIMENSION]
AGREES = 1e-11  # with PyTorch in float64, as in test_80_autodiff.py
PRECISE = 1e-12  # a meta-gradient of two steps against the complex step


# ---- PyTorch -------------------------------------------------------------------------


def torch_function(layer):
    """PyTorch's own function for a layer, for one task's input (N, ...)."""
    from torch import nn

    arguments = {f.name: getattr(layer, f.name) for f in fields(layer)}
    return getattr(nn, type(layer).__name__)(**arguments)


def tangent(outputs, inputs, tangents):
    """The tangent of outputs by reverse mode twice: the product with the transpose is
    linear in its cotangent, and its own transpose is the product.
    """
    import torch

    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(outputs, inputs, u, create_graph=True)
    linear = sum((a * b).sum() for a, b in zip(pulled, tangents, strict=True))
    return torch.autograd.grad(linear, u)[0]


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("layer", EVERY, ids=str)
def test_all_passes_agree_with_pytorch(layer):
    import torch

    inputs = draws(cases.LayerCase(layer, (3, 4, 2)), 1, False, np.float64)
    ours = passes(cases.LayerCase(layer, (3, 4, 2)), K, *inputs)
    x, rx, dy, rdy = (torch.tensor(a[0], requires_grad=True) for a in inputs[2:])
    y = torch_function(layer)(x)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    theirs = {"y": y, "dx": dx, "ry": tangent(y, (x,), (rx,))}
    theirs["rdx"] = tangent(dx, (x, dy), (rx, rdy))
    for name, a in theirs.items():
        a = a.detach().numpy()
        assert np.abs(ours[name][0] - a).max() <= AGREES * np.abs(a).max(), name


@pytest.mark.parametrize(
    "library", [pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ("torch", "jax")]
)
def test_a_meta_gradient_through_all_agrees_with_autodiff(library):
    from refmaml.autodiff import jax_autodiff, torch_autodiff

    oracle = {"torch": torch_autodiff.torch_meta_gradient, "jax": jax_autodiff.jax_meta_gradient}
    net = net_with(*ELEMENTWISE, rm.Softmax(), rm.Linear(3, 3), rm.LogSoftmax())
    theta, batch, _ = cases.method_case(net, [0.1] * 2)
    truth = oracle[library](net, theta, batch, 0.1, 2)
    error = np.abs(rm.MAML(0.1, 2).meta_gradient(net, theta, batch).grad - truth).max()
    assert error <= AGREES * np.abs(truth).max()


# ---- nets ----------------------------------------------------------------------------


def net_with(*layers):
    """A linear layer before each of the layers, and a linear head."""
    weighted = [part for layer in layers for part in (rm.Linear(3, 3), layer)]
    return rm.Sequential([*weighted, rm.Linear(3, 3)], rm.CrossEntropy(), (3,))


@pytest.mark.parametrize("layer", [*ELEMENTWISE, rm.Softmax(), rm.LogSoftmax()], ids=str)
def test_a_meta_gradient_agrees_with_the_complex_step(layer):
    net, method = net_with(layer, layer), rm.MAML(0.3, 2)
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    assert method_checks.meta_gradient_check(method, net, theta, batch).error <= PRECISE


def test_a_net_with_every_activation_is_one_kernel_on_the_cpu():
    net = net_with(*ELEMENTWISE).with_kernels("cpu")
    operations, _ = plan(net, (3,))
    assert {op.function for op in operations[1::2]} == set(range(3, len(NUMBERS)))
    assert net.whole_net((3,), np.dtype(float)) is not None
    assert plan(net_with(rm.Softmax()), (3,)) is None


# ---- kernels -------------------------------------------------------------------------


def kernel_sets():
    """The cpu kernels, and the CUDA kernels where they can be compiled for the CPU."""
    mark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
    return [
        pytest.param(lambda request: kernels.cpu(), id="cpu"),
        pytest.param(lambda request: request.getfixturevalue("cuda"), id="cuda", marks=mark),
    ]


@pytest.mark.parametrize("make", kernel_sets())
@pytest.mark.parametrize("layer", EVERY, ids=str)
def test_all_passes_agree_with_the_reference_kernels(layer, make, request):
    case = cases.LayerCase(layer, (3, 4, 2))
    for dtype in (np.float32, np.float64):
        fraction, name = worst(case, make(request), *draws(case, 3, False, dtype))
        assert fraction <= 1, f"{name}: {fraction} of the tolerance"


@pytest.mark.parametrize("make", kernel_sets())
@pytest.mark.parametrize("layer", ELEMENTWISE, ids=str)
def test_nan_and_infinity_go_where_they_go_in_the_reference(layer, make, request):
    x = np.array([np.nan, np.inf, -np.inf, -1e4, 1e4, 0.0, -0.0, 1.0]).reshape(1, 1, 8)
    case = cases.LayerCase(layer, (8,))
    with np.errstate(all="ignore"):
        truth, ours = (
            passes(case, k, {}, {}, x, x, *(2 * [layer.forward(K, {}, x)[0]]))
            for k in (K, make(request))
        )
    for name in truth:
        assert np.array_equal(np.isnan(truth[name]), np.isnan(ours[name])), name
        assert np.array_equal(np.isinf(truth[name]), np.isinf(ours[name])), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layer", EVERY, ids=str)
def test_large_inputs_overflow_nowhere(layer, dtype):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        x = np.array([-1e4, -800, -90, 0, 90, 800, 1e4], dtype).reshape(1, 1, 7, 1)
        case = cases.LayerCase(layer, x.shape[2:])
        results = passes(case, K, {}, {}, x, np.ones_like(x), np.ones_like(x), np.ones_like(x))
    for name, value in results.items():
        assert np.isfinite(value).all() and value.dtype == dtype, name


# ---- arguments and copies ------------------------------------------------------------


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: rm.GELU("erf"), "approximate: expected one of none, tanh, got 'erf'"),
        (lambda: rm.GELU(None), "approximate: expected one of none, tanh, got None"),
        (lambda: rm.ELU(np.nan), "alpha: expected a finite number, got nan"),
        (lambda: rm.ELU("1"), "alpha: expected a finite number, got '1'"),
        (lambda: rm.Softmax(0), "dim: expected an integer other than 0"),
        (lambda: rm.LogSoftmax(1.0), "dim: expected an integer other than 0"),
        (
            lambda: rm.Softmax(2).output_shape((5,)),
            "input of Softmax: expected a dimension 2, got shape (5,)",
        ),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("layer", EVERY, ids=str)
def test_copies_and_pickles_are_equal(layer):
    assert copy.deepcopy(layer) == layer == pickle.loads(pickle.dumps(layer))
    net = net_with(layer) if getattr(layer, "dim", 1) > 0 else None
    if net is not None:
        theta = net.init(0)
        x = np.ones((1, 2, 3), np.float32)
        twin = pickle.loads(pickle.dumps(net))
        assert np.array_equal(
            *(n.gradient(theta[None], x, np.ones((1, 2), int)) for n in (net, twin))
        )
