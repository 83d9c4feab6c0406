"""From a configuration to its network."""

from dataclasses import replace
from math import prod

from refmaml import models
from refmaml.cli.kernels import kernel_set
from refmaml.cli.options import flag
from refmaml.cli.presets import IMAGES, POLICIES
from refmaml.errors import ArgumentError, expect
from refmaml.execution import Sequential
from refmaml.layers import MSE, BoundedGaussianNLL, Context, CrossEntropy, FiLM, Flatten
from refmaml.methods.table import BY_NAME

CONV4_OPTIONS = (
    "downsample", "padding", "head", "head_init", "bn_gamma", "bn_eps", "weight_gain", "norm",
)  # fmt: skip
CONV4_NORMS = ("BatchNorm2d", "GroupNorm", "LayerNorm")


def make_net(config, threads=None):
    """The network on its kernels, with its loss.

    threads  of the cpu kernels; None: as many as Numba is set to
    Raises ArgumentError for options that do not fit together.
    """
    net = net_structure(config, kernel_set(config["kernels"], threads))
    check_patterns(net, config)
    return net


def net_structure(config, kernels):
    """The network on the given kernels. No array is allocated, whatever the sizes."""
    labelled = config["data"] not in POLICIES
    expect(labelled, "--data", "sets of examples; refmaml returns measures policies",
           config["data"])  # fmt: skip
    images, chosen = config["data"] in IMAGES, config["net"]
    loss = CrossEntropy(config["loss_scale"]) if images else regression_loss(config)
    if chosen == "conv4":
        expect(images, "--net", "mlp or two_layer_linear", f"conv4 with --data {config['data']}")
        settings = {name: config[name] for name in CONV4_OPTIONS}
        net = models.conv4(
            config["n_way"],
            config["channels"],
            image=image_shape(config),
            loss=loss,
            kernels=kernels,
            **settings,
        )
    elif chosen == "resnet12":
        expect(images, "--net", "mlp or two_layer_linear", f"resnet12 with --data {config['data']}")
        net = models.resnet12(config["width"], config["n_way"], (1, 28, 28), loss, kernels)
    elif chosen == "mlp":
        net = make_mlp(config, images, loss, kernels)
    else:
        expect(
            config["data"] == "linear",
            "--net",
            "another one",
            f"two_layer_linear with --data {config['data']}",
        )
        expect(not config["likelihood"], "--net", "mlp with --likelihood", "two_layer_linear")
        loss = MSE(config["loss_scale"], 0.5)
        net = models.two_layer_linear(config["dim"], config["rank"], loss, kernels)
    return with_context(net, config) if BY_NAME[config["method"]].context else net


def regression_loss(config):
    """Squared error; or the likelihood of a mean and a spread for each target."""
    scale = config["loss_scale"]
    return BoundedGaussianNLL(scale, full=True) if config["likelihood"] else MSE(scale)


def make_mlp(config, images, loss, kernels):
    """A multi-layer perceptron with the inputs and outputs of the data."""
    if images:
        before, inputs, outputs = [Flatten()], prod(image_shape(config)), config["n_way"]
    else:
        before, inputs = (
            [],
            {"sinusoid": 1, "completion": 2 + 4 * config["frequencies"], "linear": config["dim"]}[
                config["data"]
            ],
        )
        outputs = 2 if config["likelihood"] else 1
    sizes, init = (inputs, *config["hidden"], outputs), config["mlp_init"]
    net = models.mlp(sizes, loss=loss, kernels=kernels, init=init)
    shape = image_shape(config) if images else (inputs,)
    return Sequential([*before, *net.layers], loss, shape, kernels)


def image_shape(config):
    """(C, H, W) of the images: 28 x 28 pixels in grey, unless they are one's own."""
    size = config["size"]
    return (3 if config["color"] else 1, size, size) if config["data"] == "folder" else (1, 28, 28)


def with_context(net, config):
    """The net with CAVIA's context.

    In conv4 the context scales the channels of the third block; an mlp has it as
    further inputs.
    """
    layers, size = list(net.layers), config["context"]
    if config["net"] == "conv4":
        norms = [i for i, layer in enumerate(layers) if type(layer).__name__ in CONV4_NORMS]
        layers.insert(norms[2] + 1, FiLM(config["channels"], size))
        return Sequential(layers, net.loss_function, net.input_shape, net.kernels)
    expect(
        config["net"] == "mlp",
        "--net",
        f"conv4 or mlp with --method {config['method']}",
        config["net"],
    )
    first = next(i for i, layer in enumerate(layers) if type(layer).__name__ == "Linear")
    wider = replace(layers[first], in_features=layers[first].in_features + size)
    layers[first : first + 1] = [Context(size), wider]
    return Sequential(layers, net.loss_function, net.input_shape, net.kernels)


def check_patterns(net, config):
    """Raise ArgumentError for a pattern that selects no parameter of the net."""
    for name in ("adapts", "frozen"):
        try:
            net.mask(config[name] or ())
        except ArgumentError as error:
            raise ArgumentError(f"{flag(name)}: {str(error).removeprefix('patterns: ')}") from None
