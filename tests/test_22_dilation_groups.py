"""Dilation and groups of Conv2d: on every kernel set, beside PyTorch, with mistakes."""

import copy
import pickle

import numpy as np
import pytest
from test_80_autodiff import batch_for, error, oracle, start  # noqa: F401 (a fixture)

import refmaml as rm
from refmaml import kernels
from refmaml.golden.check import describe_net
from refmaml.oracles import cases, meta_objectives
from refmaml.oracles.layer_cases import DILATED_AND_GROUPED
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.method_checks import meta_gradient_check

K = kernels.reference()
CASES = [case.layer for case in DILATED_AND_GROUPED]


def net_with(groups=2):
    """Dilated convolutions, the second with groups, between other layers."""
    layers = [rm.Conv2d(2, 4, 3, padding=2, dilation=2), rm.BatchNorm2d(4), rm.LeakyReLU(0.1)]
    layers += [rm.Conv2d(4, 6, (2, 3), stride=(2, 1), dilation=(1, 2), groups=groups)]
    layers += [rm.Softplus(), rm.SpatialMean(), rm.Linear(6, 3)]
    return rm.Sequential(layers, rm.CrossEntropy(), (2, 6, 7))


# ---- arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rm.Conv2d(4, 6, 3, groups=3), "groups: expected a divisor of (4, 6) channels"),
        (lambda: rm.Conv2d(4, 6, 3, groups=0), "groups: expected an integer >= 1, got 0"),
        (lambda: rm.Conv2d(4, 6, 3, dilation=0), "dilation: expected an integer >= 1"),
        (lambda: rm.Conv2d(4, 6, 3, dilation=(1, 2, 3)), "dilation: expected an integer >= 1"),
        (
            lambda: rm.Conv2d(1, 1, 3, dilation=3).output_shape((1, 6, 9)),
            "input of Conv2d: expected at least 7 rows and columns for its (7, 7) window",
        ),
    ],
)
def test_a_bad_argument_gets_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as raised:
        make()
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_fields_and_copies():
    layer = rm.Conv2d(4, 6, 3, dilation=(1, 2), groups=2)
    assert layer.shapes() == {"weight": (6, 2, 3, 3), "bias": (6,)}
    assert layer == copy.deepcopy(layer) == pickle.loads(pickle.dumps(layer))
    assert layer != rm.Conv2d(4, 6, 3) and hash(layer) == hash(copy.copy(layer))
    assert rm.Conv2d(4, 6, 3, 1, 0, False).bias is False  # positions are those of before


def test_same_padding_keeps_the_extents_of_a_dilated_convolution():
    for extent, kernel, dilation in [(7, 3, 2), (8, 2, 3), (9, 4, 1)]:
        layer = rm.Conv2d(1, 1, kernel, padding="same", dilation=dilation)
        assert layer.output_shape((1, extent, extent)) == (1, extent, extent)


def test_a_dilation_of_1_changes_nothing_that_kernels_or_golden_files_see():
    plain = rm.Conv2d(2, 3, 3, padding=1)
    assert plain.windows((5, 5)) == ((1, 1), ((1, 1), (1, 1)))
    net = rm.Sequential([plain, rm.SpatialMean(), rm.Linear(3, 2)], input_shape=(2, 5, 5))
    known = {"layer", "in_channels", "out_channels", "kernel_size", "stride", "padding", "bias"}
    assert set(describe_net(net)["layers"][0]) == known | {"output_shape"}
    described = describe_net(net_with())["layers"][3]
    assert described["dilation"] == [1, 2] and described["groups"] == 2


# ---- values --------------------------------------------------------------------------


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("layer", CASES, ids=cases.brief)
def test_torch_has_the_same_names_shapes_and_outputs(layer):
    import torch

    x = np.random.default_rng(0).standard_normal((1, 2, layer.in_channels, 8, 9))
    stride, ((top, bottom), (left, right)), *_ = layer.windows((8, 9))
    theirs = torch.nn.Conv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, stride,
        dilation=layer.dilation, groups=layer.groups, bias=layer.bias,
    ).double()  # fmt: skip
    w = {name: a.detach().numpy()[None] for name, a in theirs.state_dict().items()}
    assert {name: a.shape[1:] for name, a in w.items()} == layer.shapes()
    padded = torch.nn.functional.pad(torch.from_numpy(x[0]), (left, right, top, bottom))
    y, _ = layer.forward(K, w, x)
    assert np.abs(y[0] - theirs(padded).detach().numpy()).max() < 1e-13
    assert y.shape[2:] == layer.output_shape(x.shape[2:])


def test_maml_agrees_with_autodiff(oracle):  # noqa: F811
    net = net_with()
    theta, batch = start(net), batch_for(net)
    ours = rm.MAML(0.1, 2).meta_gradient(net, theta, batch).grad
    assert error(ours, oracle.meta_gradient(net, theta, batch, 0.1, 2)) < 1e-11


@pytest.mark.parametrize("groups", [1, 2])
def test_a_meta_gradient_agrees_with_the_complex_step(groups):
    net, maml = net_with(groups), rm.MAML(0.1, 2)
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, maml))
    assert meta_gradient_check(maml, net, theta, batch).error < 1e-12


@pytest.mark.parametrize("dtype, limit", [(np.float32, 1e-4), (np.float64, 1e-12)])
@pytest.mark.parametrize("groups", [1, 2])
def test_one_kernel_takes_dilation_and_groups(groups, dtype, limit):
    net, maml = net_with(groups), rm.MAML(0.1, 2)
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, maml))
    fast = net.with_kernels(kernels.cpu())
    assert fast.whole_net(net.input_shape, np.dtype(dtype)) is not None
    exact = maml.meta_gradient(net, theta, batch).grad
    ours = maml.meta_gradient(fast, theta.astype(dtype), batch.astype(dtype)).grad
    assert ours.dtype == dtype and np.abs(ours - exact).max() < limit * np.abs(exact).max()


# ---- planted errors ------------------------------------------------------------------


def groups_exchanged(a, G):
    """The groups of channels in the opposite order."""
    T, N, C, H, W = a.shape
    return a.reshape(T, N, G, C // G, H, W)[:, :, ::-1].reshape(a.shape)


def of_another_group(y, x, w, *windows):
    K.conv2d_forward(y, groups_exchanged(x, x.shape[2] // w.shape[2]), w, *windows)


def dx_of_another_group(dx, dy, w, *windows):
    K.conv2d_backward_x(dx, groups_exchanged(dy, dx.shape[2] // w.shape[2]), w, *windows)


def dw_of_another_group(dw, x, dy, *windows):
    K.conv2d_backward_w(dw, groups_exchanged(x, x.shape[2] // dw.shape[2]), dy, *windows)


def rows_for_columns(y, x, w, stride, padding, dilation=(1, 1)):
    """The smaller of both dilations for rows and columns."""
    K.conv2d_forward(y, x, w, stride, padding, (min(dilation), min(dilation)))


def without_dilation(name, count):
    """The kernel without the dilation: count arrays, stride and padding are passed."""

    def wrong(*arguments):
        getattr(K, name)(*arguments[: count + 2])

    return {name: wrong}


ERRORS = {
    "forward without dilation": without_dilation("conv2d_forward", 3),
    "dx without dilation": without_dilation("conv2d_backward_x", 3),
    "dw without dilation": without_dilation("conv2d_backward_w", 3),
    "ry without dilation": without_dilation("conv2d_r_forward", 5),
    "rdx without dilation": without_dilation("conv2d_r_backward_x", 5),
    "rdw without dilation": without_dilation("conv2d_r_backward_w", 5),
    "one dilation for rows and columns": {"conv2d_forward": rows_for_columns},
    "y from another group": {"conv2d_forward": of_another_group},
    "dx from another group": {"conv2d_backward_x": dx_of_another_group},
    "dw from another group": {"conv2d_backward_w": dw_of_another_group},
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_planted_error_is_caught(name):
    planted = K.replace("planted", **ERRORS[name])
    assert any(not c.passed for case in DILATED_AND_GROUPED for c in layer_checks(case, planted))
