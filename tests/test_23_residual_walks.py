"""What walks over the layers of a net finds those inside a Residual."""

import numpy as np
import pytest
from residual_nets import residual_net

import refmaml as rm
from refmaml import kernels
from refmaml.bench import flops
from refmaml.execution.fusion import fused_layers
from refmaml.golden.check import describe_net
from refmaml.golden.passes import passes
from refmaml.layers import Residual
from refmaml.oracles import cases, complex_step, kinks
from refmaml.oracles.meta_objectives import meta_objective


def test_an_error_names_the_layer_inside():
    net = residual_net()
    theta = net.init(0, np.float64)
    theta[net.parameters.slices["3.branch.0.branch.0.bias"]] = np.inf
    batch = cases.tasks_for(net, np.random.default_rng(0))
    with pytest.raises(rm.NonFiniteError, match=r"\(3\.branch\.0\.branch\.0\.bias\)"):
        rm.MAML(0.1).meta_gradient(net, theta, batch)
    theta = net.init(0, np.float64)
    theta[net.parameters.slices["0.shortcut.0.weight"]] = 1e308
    with pytest.raises(rm.NonFiniteError, match=r"layer 0\.shortcut\.0 \(Conv2d\).* in task 0"):
        rm.MAML(0.1).meta_gradient(net, theta, batch)


def test_a_kink_inside_is_found():
    net = rm.Sequential([Residual([rm.Linear(2, 2, bias=False), rm.ReLU()]), rm.Linear(2, 2)])
    w, x = np.ones((1, net.num_params)), np.array([[[1.0, -1.0], [2.0, 1.0]]])
    assert kinks.net_margin(net, w, x) == 0  # 1 - 1 = 0 in front of the ReLU
    assert kinks.net_margin(net, w, x + [0.5, 0]) > 0.1


def test_outputs_inside_count_as_memory():
    net, flat = residual_net(), rm.Sequential([rm.Linear(2, 3), rm.Linear(3, 4)])
    assert flat.activations((5, 2)) == 5 * 7
    images, pooled = 3 * 6 * 5, 3 * 3 * 2
    # block: three in the branch, two in the shortcut, the sum; the activation; pooling
    assert net.activations((1, 2, 6, 5)) == 7 * images + pooled + 5 * pooled + 3 + 3


def test_operations_inside_are_counted():
    net = residual_net()
    big, small = 2 * 30 * 3 * 2, 2 * 6 * 3 * 3  # multiply-adds of one tap, times 2
    conv, shortcut, inner, head = 9 * big, big, 9 * small, 18
    assert flops.products(net, (2, 6, 5)) == [conv, shortcut, inner, head]
    assert flops.gradient(net) == 2 * (conv + shortcut) + 3 * (inner + head)


def test_golden_passes_and_descriptions_know_a_residual():
    net, rng = residual_net(), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    v = rng.standard_normal(net.num_params)
    found = passes(net, theta, v, batch.x_support, batch.y_support)
    assert {f"{a}.{i}" for a in ("y", "dy", "ry", "rdy") for i in range(6)} <= set(found)
    described = describe_net(net)["layers"][0]
    assert described["layer"] == "Residual" and described["output_shape"] == [3, 6, 5]
    assert described["branch"][0]["padding"] == [[1, 1], [1, 1]]
    assert [layer["layer"] for layer in described["shortcut"]] == ["Conv2d", "BatchNorm2d"]


def test_layers_inside_are_fused_where_the_kernels_can():
    fusing = kernels.reference().functions | {"norm_act_pool_forward": None}
    chosen = kernels.KernelSet("fusing", fusing)
    (fused, *_) = fused_layers(residual_net().layers, chosen)
    kinds = {part: [type(a).__name__ for a in inner] for part, inner in fused.parts.items()}
    assert kinds["branch"] == ["Conv2d", "NormActPool", "Identity"]
    assert kinds["shortcut"] == ["Conv2d", "NormActPool"]


def gradient_by(method, net):
    """A function (params, batch) for the doctor: the meta-gradient of a method."""

    def function(params, batch):
        own = rm.Batch(batch.x_support, batch.y_support, batch.x_query, batch.y_query)
        return net.named(method.meta_gradient(net, net.flat(params), own).grad)

    return function


def test_the_doctor_takes_a_net_with_a_residual():
    net, maml = residual_net(), rm.MAML(0.1, 2)
    assert rm.check_meta_gradient(gradient_by(maml, net), maml, net=net, repeats=0).ok
    wrong = gradient_by(rm.FirstOrderMAML(0.1, 2), net)
    assert not rm.check_meta_gradient(wrong, maml, net=net, repeats=0).ok


# ---- resnet12 ------------------------------------------------------------------------


@pytest.mark.parametrize("image, last", [((1, 28, 28), (1, 1)), ((3, 84, 84), (5, 5))])
def test_resnet12_has_four_blocks_of_three_convolutions(image, last):
    net = rm.resnet12(4, n_way=3, image=image)
    kinds = [type(layer).__name__ for layer in net.layers]
    assert kinds == ["Residual", "LeakyReLU", "MaxPool2d"] * 4 + ["SpatialMean", "Linear"]
    widths = [net.shapes[f"{3 * i}.branch.0.weight"][0] for i in range(4)]
    assert widths == [4, 8, 16, 32] and net.shapes["13.weight"] == (3, 32)
    shape = image
    for layer in net.layers[:-2]:
        shape = layer.output_shape(shape)
    assert shape == (32, *last)
    names = [name for name in net.shapes if name.startswith("3.")]
    assert names == [
        "3.branch.0.weight", "3.branch.1.weight", "3.branch.1.bias",
        "3.branch.3.weight", "3.branch.4.weight", "3.branch.4.bias",
        "3.branch.6.weight", "3.branch.7.weight", "3.branch.7.bias",
        "3.shortcut.0.weight", "3.shortcut.1.weight", "3.shortcut.1.bias",
    ]  # fmt: skip


def test_resnet12_has_the_published_number_of_parameters():
    """A ResNet-12 of widths 64 to 512 has 8.0 million parameters."""
    convolutions = sum(
        9 * c * o + 2 * 9 * o * o + c * o for c, o in [(3, 64), (64, 128), (128, 256), (256, 512)]
    )
    norms = 4 * 2 * (64 + 128 + 256 + 512)
    assert rm.resnet12().num_params == convolutions + norms + 512 * 5 + 5


def test_the_meta_gradient_of_resnet12_agrees_with_the_complex_step_along_a_direction():
    net = rm.resnet12(2, n_way=3, image=(1, 16, 16))
    theta, batch = net.init(0, np.float64), cases.tasks_for(net, np.random.default_rng(0))
    maml, v = rm.MAML(0.05, 1), np.random.default_rng(1).standard_normal(net.num_params)
    grad = maml.meta_gradient(net, theta, batch).grad
    moved = complex_step.shifted(theta, v)[None]
    objectives = [meta_objective(net, maml, batch[t : t + 1], moved) for t in range(len(batch))]
    assert grad @ v == pytest.approx(np.mean(complex_step.derivative(np.array(objectives))), 1e-11)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rm.resnet12(n_way=1), "n_way: expected at least 2 classes, got 1"),
        (lambda: rm.resnet12(image=(28, 28)), "image: expected a shape"),
        (lambda: rm.resnet12(image=(1, 15, 28)), "input of MaxPool2d"),
    ],
)
def test_resnet12_refuses_bad_arguments_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as raised:
        make()
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_the_command_line_builds_resnet12():
    from refmaml.cli import options
    from refmaml.cli.build_net import make_net

    config = options.settle({"net": "resnet12", "width": 3, "n_way": 4, "kernels": "reference"})
    net = make_net(config)
    assert net.input_shape == (1, 28, 28) and net.shapes["13.weight"] == (4, 24)
    with pytest.raises(rm.ArgumentError, match="--net: expected mlp or two_layer_linear"):
        make_net(options.settle({"net": "resnet12", "data": "sinusoid"}))
    with pytest.raises(rm.ArgumentError, match="--width: expected --net resnet12"):
        options.refuse_unused({"width": 3}, options.settle({"width": 3}))
