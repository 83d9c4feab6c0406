"""Rung 6: the hand-written derivatives against those of PyTorch and JAX."""

import subprocess
import sys
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import pytest

import refmaml as rm
from refmaml.autodiff import formulas, jax_autodiff, torch_autodiff
from refmaml.layers import __all__ as layers_and_losses

# Two programs add the same float64 numbers in different orders. Roundings of 1e-16 grow
# to about 1e-14 in sums over some hundred numbers and in three inner steps through
# batch-norm. The bound is a thousand times larger, for other releases and processors. A
# wrong or absent term causes an error above 1e-3.
AGREES, WRONG = 1e-11, 1e-3
K, TASKS = 3, 3


class Oracle(NamedTuple):
    meta_gradient: object
    hvp: object


ORACLES = {
    "torch": Oracle(torch_autodiff.torch_meta_gradient, torch_autodiff.torch_hvp),
    "jax": Oracle(jax_autodiff.jax_meta_gradient, jax_autodiff.jax_hvp),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ORACLES],
)
def oracle(request):
    with one_torch_thread() if request.param == "torch" else nullcontext():
        yield ORACLES[request.param]


@contextmanager
def one_torch_thread():
    """On nets this small, PyTorch's threads mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Case(NamedTuple):
    """A net, a step size at which its Hessian matters, and a part that adapts."""

    net: rm.Sequential
    inner_lr: float
    part: dict


def strided_conv4():
    net = rm.conv4(n_way=3, channels=4, image=(1, 16, 16), loss=rm.CrossEntropy("sum/K"))
    return Case(net, 0.1, {"adapts": ("head",)})


def max_pool_conv():
    net = rm.Sequential(
        [
            rm.Conv2d(2, 4, 3, padding=1, bias=False),
            rm.BatchNorm2d(4),
            rm.ReLU(),
            rm.MaxPool2d(3, stride=2),
            rm.Flatten(),
            rm.Linear(64, 3),
        ],
        rm.CrossEntropy(),
        (2, 9, 9),
    )
    return Case(net, 0.05, {"frozen": ("BatchNorm2d",)})


def tanh_mlp():
    return Case(rm.mlp((2, 12, 12, 3), "tanh", rm.MSE("sum/K")), 0.05, {"adapts": ("body",)})


def conditioned():
    """Both contexts of CAVIA, an asymmetric convolution, overlapping means."""
    net = rm.Sequential(
        [
            rm.Context(2),
            rm.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=((0, 1), (2, 0))),
            rm.FiLM(4, 3),
            rm.LeakyReLU(0.1),
            rm.AvgPool2d(3, stride=2),
            rm.Flatten(),
            rm.Linear(12, 6),
            rm.Softplus(),
            rm.FiLM(6, 2),
            rm.Context(1),
            rm.Linear(7, 3),
        ],
        rm.CrossEntropy(),
        (1, 9, 6),
    )
    return Case(net, 0.1, {"adapts": ("context",)})


def two_layer_linear():
    return Case(rm.two_layer_linear(8, 3), 0.1, {"adapts": ("0.weight",)})


NETS = (strided_conv4, max_pool_conv, tanh_mlp, conditioned, two_layer_linear)
CASES = {make.__name__: make() for make in NETS}  # made once: JAX compiles for each new net


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def start(net):
    """A theta whose every entry has been moved: no context at 0, no gamma at 1."""
    rng = np.random.default_rng(1)
    return net.init(seed=rng, dtype=np.float64) + 0.1 * rng.standard_normal(net.num_params)


def data(net, examples, rng):
    """Normal inputs, none of them on a kink, and targets for the loss."""
    x = rng.standard_normal((TASKS, examples, *net.input_shape))
    (D,) = net.output_shape(net.input_shape)
    if isinstance(net.loss_function, rm.MSE):
        return x, rng.standard_normal((TASKS, examples, D))
    return x, rng.integers(0, D, (TASKS, examples))


def batch_for(net):
    rng = np.random.default_rng(2)
    return rm.Batch(*data(net, 6, rng), *data(net, 8, rng))


def error(ours, reference):
    """max|ours - reference| / max|reference|."""
    assert ours.dtype == reference.dtype == np.float64 and ours.shape == reference.shape
    return np.abs(ours - reference).max() / np.abs(reference).max()


class DoubledHessian(rm.Sequential):
    """The planted mistake: every Hessian-vector product twice too large."""

    def hvp(self, primal, v):
        return 2 * super().hvp(primal, v)


def test_maml_agrees_with_autodiff_and_a_doubled_hessian_does_not(oracle, case):
    net, theta, batch, maml = (
        case.net,
        start(case.net),
        batch_for(case.net),
        rm.MAML(case.inner_lr, K),
    )
    reference = oracle.meta_gradient(net, theta, batch, case.inner_lr, K)
    doubled = DoubledHessian(net.layers, net.loss_function, net.input_shape)
    right = error(maml.meta_gradient(net, theta, batch).grad, reference)
    wrong = error(maml.meta_gradient(doubled, theta, batch).grad, reference)
    print(f"error {right:.1e}, with a doubled Hessian {wrong:.1e}")
    assert right < AGREES and wrong > WRONG


def test_first_order_maml_agrees_with_autodiff_and_maml_does_not(oracle, case):
    net, theta, batch = case.net, start(case.net), batch_for(case.net)
    reference = oracle.meta_gradient(net, theta, batch, case.inner_lr, K, first_order=True)
    right = error(
        rm.FirstOrderMAML(case.inner_lr, K).meta_gradient(net, theta, batch).grad, reference
    )
    wrong = error(rm.MAML(case.inner_lr, K).meta_gradient(net, theta, batch).grad, reference)
    print(f"error {right:.1e}, second-order {wrong:.1e}")
    assert right < AGREES and wrong > WRONG


def test_maml_on_a_part_of_the_parameters_agrees_with_autodiff(oracle, case):
    net, theta, batch = case.net, start(case.net), batch_for(case.net)
    reference = oracle.meta_gradient(net, theta, batch, case.inner_lr, K, **case.part)
    right = error(
        rm.MAML(case.inner_lr, K, **case.part).meta_gradient(net, theta, batch).grad, reference
    )
    wrong = error(rm.MAML(case.inner_lr, K).meta_gradient(net, theta, batch).grad, reference)
    print(f"error {right:.1e}, where all adapt {wrong:.1e}")
    assert right < AGREES and wrong > WRONG


def test_hessian_vector_products_agree_with_autodiff(oracle, case):
    net, theta = case.net, start(case.net)
    rng = np.random.default_rng(3)
    (x, y), v = data(net, 6, rng), rng.standard_normal(net.num_params)
    right = error(net.hessian(theta, x, y) @ v, oracle.hvp(net, theta, x, y, v))
    print(f"error {right:.1e}")
    assert right < AGREES


LOSSES = [
    *(rm.CrossEntropy(reduction) for reduction in ("mean", "sum", "sum/K")),
    *(
        rm.MSE(reduction, factor)
        for reduction, factor in (("mean", 1.0), ("sum", 0.5), ("sum/K", 3.0))
    ),
]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_every_reduction_of_every_loss_has_the_scale_that_autodiff_finds(oracle, loss):
    net = rm.mlp((3, 4), loss=loss)
    theta, rng = start(net), np.random.default_rng(4)
    (x, y), v = data(net, 5, rng), rng.standard_normal(net.num_params)
    assert error(net.hessian(theta, x, y) @ v, oracle.hvp(net, theta, x, y, v)) < AGREES


def test_a_float32_start_is_taken_to_float64(oracle):
    net = rm.two_layer_linear(4, 2)
    theta, batch = start(net).astype(np.float32), batch_for(net)
    both = [
        oracle.meta_gradient(net, same, batch, 0.1, 1) for same in (theta, theta.astype(np.float64))
    ]
    assert both[0].dtype == np.float64 and np.array_equal(*both)


def test_a_layer_without_a_formula_is_named(oracle):
    class Cube(rm.Tanh):
        """A layer without a formula."""

    net = rm.Sequential([rm.Linear(2, 2), Cube()], rm.MSE(), (2,))
    with pytest.raises(rm.ArgumentError, match="Cube"):
        oracle.meta_gradient(net, start(net), batch_for(net), 0.1, 1)


def test_every_layer_and_loss_has_a_formula():
    names = {c.__name__ for c in [*formulas.FORWARD, *formulas.LOSSES]}
    assert names | {"Residual"} == set(layers_and_losses)  # a sum, which needs no formula


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize(
    ("extents", "kernel", "stride"), [((28, 28), 3, 2), ((7, 7), 3, 2), ((5, 8), (2, 5), (3, 1))]
)
def test_same_padding_is_what_jax_calls_same(extents, kernel, stride):
    from jax import lax

    kernel, stride, padding, _ = rm.Conv2d(1, 1, kernel, stride, padding="same").geometry(extents)
    assert list(padding) == lax.padtype_to_pads(extents, kernel, stride, "SAME")


@pytest.mark.frameworks("jax")
def test_jax_is_left_in_the_precision_it_was_in():
    import jax.numpy as jnp

    before = jnp.ones(1).dtype
    net = rm.two_layer_linear(4, 2)
    assert (
        jax_autodiff.jax_meta_gradient(net, start(net), batch_for(net), 0.1, 1).dtype == np.float64
    )
    assert jnp.ones(1).dtype == before


@pytest.mark.parametrize("module", ORACLES)
def test_an_absent_framework_is_a_reason_and_no_error(monkeypatch, module):
    # Python's own mark of a module that must not be imported.
    monkeypatch.setitem(sys.modules, module, None)
    missing = {"torch": torch_autodiff.missing, "jax": jax_autodiff.missing}[module]
    assert missing().startswith(f"{module} cannot be imported")


def test_importing_the_oracles_imports_no_framework():
    code = """import sys, refmaml.autodiff.torch_autodiff, refmaml.autodiff.jax_autodiff
print({"torch", "jax"} & set(sys.modules))"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert answer.strip() == "set()"
