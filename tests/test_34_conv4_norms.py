"""conv4 with batch, group or layer norm, in Python and on the command line."""

import numpy as np
import pytest
from command_line import REFERENCE, configuration, error_of

import refmaml as rm
from refmaml.cli import main, problem
from refmaml.oracles import cases
from refmaml.oracles.method_checks import truth_by_steps
from refmaml.oracles.tolerance import relative_error

pytestmark = pytest.mark.slow


def norms_of(net):
    return [layer for layer in net.layers if "Norm" in type(layer).__name__]


def test_batch_norm_is_the_default():
    net = rm.conv4(channels=4)
    assert net.layers == rm.conv4(channels=4, norm="batch").layers
    assert norms_of(net) == [rm.BatchNorm2d(4, eps=1e-3, gamma=False)] * 4


@pytest.mark.parametrize("channels, groups", [(64, 8), (32, 8), (12, 4), (6, 2), (5, 1)])
def test_group_norm_has_eight_groups_or_fewer(channels, groups):
    net = rm.conv4(channels=channels, norm="group")
    assert norms_of(net) == [rm.GroupNorm(groups, channels)] * 4


@pytest.mark.parametrize(
    "downsample, sizes", [("stride", (14, 7, 4, 2)), ("max_pool", (28, 14, 7, 3))]
)
def test_layer_norm_is_over_the_whole_output_of_each_convolution(downsample, sizes):
    net = rm.conv4(channels=4, norm="layer", downsample=downsample)
    assert norms_of(net) == [rm.LayerNorm((4, n, n)) for n in sizes]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"norm": "instance"}, "norm: expected one of batch, group, layer, got 'instance'"),
        ({"norm": None}, "norm: expected one of batch, group, layer, got None"),
        ({"norm": "group", "bn_gamma": True}, "bn_gamma: expected False with norm 'group'"),
        ({"norm": "layer", "bn_eps": 1e-5}, "bn_eps: expected 0.001 with norm 'layer', got 1e-05"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(rm.ArgumentError) as error:
        rm.conv4(**options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("norm, layer", [("group", "GroupNorm"), ("layer", "LayerNorm")])
def test_the_gradient_of_maml_agrees_with_the_complex_step(norm, layer):
    net = rm.conv4(3, 4, (1, 12, 12), norm=norm, kernels="reference")
    method = rm.MAML(0.05, 1, frozen=(layer,))
    theta, batch, _ = cases.method_case(net, [np.full(net.num_params, 0.05)])
    exact = truth_by_steps(method, net, theta, batch)
    assert relative_error(method.meta_gradient(net, theta, batch).grad, exact) < 1e-12


def test_a_query_has_the_same_result_alone():
    """Only batch-norm makes the query examples depend on each other."""
    batch = rm.Glyphs("train").sample(2, 3, 1, 4, seed=0)
    alone = rm.Batch(batch.x_support, batch.y_support, batch.x_query[:, :1], batch.y_query[:, :1])
    for norm, same in (("batch", False), ("group", True), ("layer", True)):
        net = rm.conv4(3, 4, norm=norm, kernels="reference")
        phi = net.init(0)[None].repeat(2, axis=0)
        both = [net.primal(phi, b.x_query, b.y_query).outputs for b in (batch, alone)]
        assert np.allclose(both[0][:, :1], both[1], rtol=1e-5) == same


# ---- the command line ----------------------------------------------------------------


@pytest.mark.parametrize(
    "norm, layer", [("batch", "BatchNorm2d"), ("group", "GroupNorm"), ("layer", "LayerNorm")]
)
def test_the_parameters_of_the_norm_do_not_adapt_by_default(norm, layer):
    config = configuration("--norm", norm, *REFERENCE)
    assert config["norm"] == norm and config["frozen"] == [layer]
    assert {type(a).__name__ for a in norms_of(problem.make_net(config))} == {layer}
    assert configuration("--norm", norm, "--frozen", "head")["frozen"] == ["head"]
    assert configuration("--data", "sinusoid")["frozen"] is None


@pytest.mark.parametrize("method", ["maml", "cavia"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_net_with_another_norm_trains_and_resumes(tmp_path, norm, method):
    run = ["train", "--out", str(tmp_path / "run"), "--quiet"]
    small = ["--channels", "4", "--tasks", "2", "--eval-tasks", "2", "--norm", norm]
    assert main([*run, *small, "--method", method, "--steps", "1", *REFERENCE]) == 0
    assert main([*run, "--resume", "--steps", "2"]) == 0


def test_options_of_batch_norm_need_batch_norm(capsys):
    for option in (["--bn-gamma"], ["--bn-eps", "1e-5"]):
        assert error_of(capsys, "train", "--norm", "group", *option, *REFERENCE, "--quiet") == (
            f"{option[0]}: expected --norm batch beside it, got --norm group"
        )
