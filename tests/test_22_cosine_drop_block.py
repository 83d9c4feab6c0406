"""The cosine head and DropBlock in nets, and their bad arguments."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import cases, method_checks
from refmaml.oracles.tolerance import relative_error, tolerance

METHOD = rm.MAML(0.3, 2)
AGREES = 1e-11  # with autodiff libraries in float64, as in test_80_autodiff.py
PRECISE = 1e-12  # a meta-gradient of two steps against the complex step
COSINE = rm.Sequential(
    [rm.Linear(3, 8), rm.Tanh(), rm.CosineLinear(8, 3, scale=4.0)], rm.CrossEntropy(), (3,)
)
BLOCKS = rm.Sequential(
    [
        rm.Residual([rm.Conv2d(2, 4, 3, padding=1), rm.Tanh(), rm.DropBlock2d(0.3, block_size=2)],
                    [rm.Conv2d(2, 4, 1)]),
        rm.DropBlock2d(0.3, seed=5, block_size=3),
        rm.SpatialMean(),
        rm.CosineLinear(4, 3, learned_scale=False),
    ],
    rm.CrossEntropy(),
    (2, 5, 6),
)  # fmt: skip
NETS = {"cosine": COSINE, "blocks": BLOCKS}
CASES = {name: cases.method_case(net, [0.3] * 2) for name, net in NETS.items()}


@pytest.mark.parametrize("name", NETS)
def test_a_meta_gradient_agrees_with_the_complex_step(name):
    theta, batch, _ = CASES[name]
    assert method_checks.meta_gradient_check(METHOD, NETS[name], theta, batch).error <= PRECISE


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    "library", [pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ("torch", "jax")]
)
def test_a_meta_gradient_agrees_with_autodiff(library, name):
    from refmaml.autodiff import jax_autodiff, torch_autodiff

    oracle = {"torch": torch_autodiff.torch_meta_gradient, "jax": jax_autodiff.jax_meta_gradient}
    theta, batch, _ = CASES[name]
    truth = oracle[library](NETS[name], theta, batch, 0.3, 2)
    assert relative_error(METHOD.meta_gradient(NETS[name], theta, batch).grad, truth) <= AGREES


@pytest.mark.parametrize("name", NETS)
def test_the_cpu_kernels_have_the_same_result_and_bits_do_not_depend_on_chunks(name):
    theta, batch, _ = CASES[name]
    net = NETS[name].with_kernels("cpu")
    truth = METHOD.meta_gradient(NETS[name], theta, batch).grad
    out = METHOD.meta_gradient(net, theta, batch).grad
    assert relative_error(out, truth) <= tolerance(float, 1000)
    assert np.array_equal(METHOD.meta_gradient(net, theta, batch, chunk=1).grad, out)
    single = METHOD.meta_gradient(net, theta.astype(np.float32), batch).grad
    assert single.dtype == np.float32
    assert relative_error(single, truth) <= tolerance(np.float32, 1000)


def test_drop_block_is_switched_off_and_reseeded_with_dropout():
    theta, batch, _ = CASES["blocks"]
    dropped = METHOD.meta_gradient(BLOCKS, theta, batch).grad
    off = METHOD.meta_gradient(BLOCKS.evaluation(), theta, batch).grad
    other = METHOD.meta_gradient(BLOCKS.with_dropout_seed(1), theta, batch).grad
    assert relative_error(dropped, off) > 0.01 and relative_error(other, dropped) > 0.01
    assert BLOCKS.with_dropout_seed(1).layers[1].block_size == 3


def test_the_cosine_head_is_the_head_of_anil():
    theta, batch, _ = CASES["cosine"]
    phi = rm.ANIL(0.3, 2).adapt(COSINE, theta, batch.x_support, batch.y_support)
    moved = (np.abs(phi - theta) > 0).any(axis=0)
    assert moved.tolist() == COSINE.mask(("2.*",)).tolist()


@pytest.mark.frameworks("torch")
def test_a_module_of_torchvision_is_converted():
    """A stand-in with the name, module and arguments of the class in torchvision."""
    import torch
    from torch import nn

    class DropBlock2d(nn.Module):
        __module__ = "torchvision.ops.drop_block"

        def __init__(self, p, block_size, inplace=False, eps=1e-6):
            super().__init__()
            self.p, self.block_size, self.inplace, self.eps = p, block_size, inplace, eps

        def forward(self, x):
            return x * torch.bernoulli(x) if self.training and self.p else x

    module = nn.Sequential(nn.Conv2d(2, 3, 1), DropBlock2d(0.2, 3), nn.Flatten(), nn.Linear(60, 3))
    (block,) = (x for x in rm.from_torch(module, (2, 4, 5)).layers if isinstance(x, rm.Dropout))
    assert type(block) is rm.DropBlock2d and (block.p, block.block_size) == (0.2, 3)
    assert len(rm.from_torch(module.eval(), (2, 4, 5)).layers) == 3


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: rm.CosineLinear(0, 2), "in_features: expected an integer >= 1, got 0"),
        (lambda: rm.CosineLinear(2, 2.0), "out_features: expected an integer >= 1, got 2.0"),
        (lambda: rm.CosineLinear(2, 2, "x"), "scale: expected a finite number, got 'x'"),
        (lambda: rm.CosineLinear(2, 2, eps=0), "eps: expected a finite number > 0"),
        (lambda: rm.CosineLinear(2, 2, learned_scale=1), "learned_scale: expected True or False"),
        (lambda: rm.CosineLinear(2, 2).output_shape((3,)), "expected vectors of shape (2,)"),
        (lambda: rm.DropBlock2d(2), "p: expected a number in [0, 1], got 2"),
        (lambda: rm.DropBlock2d(block_size=0), "block_size: expected an integer >= 1, got 0"),
        (lambda: rm.DropBlock2d().output_shape((3, 6, 9)), "at least 7 rows and columns"),
        (lambda: rm.DropBlock2d().output_shape((3,)), "input of DropBlock2d: expected"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
