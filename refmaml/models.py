"""Nets that the papers use, ready made."""

from collections.abc import Callable, Sequence
from functools import partial
from math import gcd
from typing import Any

import numpy as np

from refmaml.arguments import check_choice, check_integer, check_positive_number, is_integer
from refmaml.errors import expect
from refmaml.execution import Sequential
from refmaml.layers import (
    MSE,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    SpatialMean,
    Tanh,
)
from refmaml.layers.initialise import small_normal, standard_normal, xavier_uniform
from refmaml.layers.layer import Layer

NORMS = ("batch", "group", "layer")
HEAD_STARTS = ("random", "zero")
BN_EPS = 1e-3  # of conv4's batch-norm
MLP_STARTS = {"small": small_normal, "xavier": xavier_uniform}
ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh}


def conv4(
    n_way: int = 5,
    channels: int = 64,
    image: Sequence[int] = (1, 28, 28),
    downsample: str = "stride",
    padding: str = "same",
    head: str = "mean",
    bn_gamma: bool = False,
    bn_eps: float = BN_EPS,
    weight_gain: float = 1.0,
    loss: Any = None,
    kernels: Any = None,
    norm: str = "batch",
    head_init: str = "random",
) -> Sequential:
    """The convolutional net of few-shot learning: four blocks, then a linear head.

    A block is a 3x3 convolution, a normalisation and a ReLU. The defaults are MAML's
    own Omniglot net (finn/maml, maml.py): stride 2 with "same" padding (28 -> 14 -> 7
    -> 4 -> 2), batch-norm with beta but no gamma, the mean over positions, a head from
    N(0, 1).

    image       the shape (C, H, W) of an input
    downsample  "stride", or "max_pool": stride 1 and padding 1, and a 2x2 max-pool
    padding     with stride 2: TensorFlow's "same", or "torch" (one row each side)
    head        "mean" over positions, or "flatten"
    bn_gamma    whether batch-norm has a scale; bn_eps: its epsilon (PyTorch's is 1e-5)
    weight_gain of Xavier's start (iMAML's code: 1.73); not of a head from N(0, 1)
    loss        CrossEntropy("mean") unless given; kernels: see Sequential
    norm        "batch"; "group": 8 groups, or gcd(8, channels), as Wu & He 2018 have in
                Table 3; "layer": over (C, H, W), as in MAML++ (Antoniou et al. 2019)
    head_init   "zero": the head's weights start at 0, so that all classes start with
                the same probability, and the curvature of the loss starts small;
                "random": from N(0, 1), or with head="flatten" from Xavier's start
    Raises ArgumentError for other arguments, or images too small for the windows.
    """
    image = check_conv4(n_way, image, downsample, padding, head)
    check_choice("head_init", head_init, HEAD_STARTS)
    channels = check_integer("channels", channels)
    norm_for = block_norm(norm, bn_gamma, bn_eps)
    init = xavier_with_gain(weight_gain)
    layers = conv4_blocks(image, channels, downsample, padding, norm_for, init)
    layers += classifier(layers, image, n_way, head, zeros if head_init == "zero" else init)
    return Sequential(layers, CrossEntropy() if loss is None else loss, image, kernels)


def check_conv4(n_way: Any, image: Any, downsample: Any, padding: Any, head: Any) -> tuple:
    """The image as a tuple of integers; checks the options that no layer checks.

    Raises ArgumentError.
    """
    for name, value, choices in (
        ("padding", padding, ("same", "torch")),
        ("downsample", downsample, ("stride", "max_pool")),
        ("head", head, ("mean", "flatten")),
    ):
        expected = " or ".join(map(repr, choices))
        expect(isinstance(value, str) and value in choices, name, expected, repr(value))
    return check_task(n_way, image)


def check_task(n_way: Any, image: Any) -> tuple:
    """The image as a tuple of integers. Raises ArgumentError."""
    expect(is_integer(n_way) and n_way >= 2, "n_way", "at least 2 classes", repr(n_way))
    expect(
        isinstance(image, tuple | list) and len(image) == 3,
        "image",
        "a shape (channels, height, width)",
        lambda: repr(image),
    )
    return tuple(check_integer("image", size) for size in image)


def block_norm(norm: Any, bn_gamma: Any, bn_eps: Any) -> Callable[[tuple], Layer]:
    """The function from the shape (C, H, W) of a convolution's output to its norm.

    Group and layer norm have gamma and beta and PyTorch's eps, 1e-5. MAML++'s code
    keeps the gamma of its layer norm at 1.
    Raises ArgumentError for an unknown norm, or options of batch-norm with another.
    """
    check_choice("norm", norm, NORMS)
    if norm == "batch":
        return lambda shape: BatchNorm2d(shape[0], eps=bn_eps, gamma=bn_gamma)
    for name, value, default in (("bn_gamma", bn_gamma, False), ("bn_eps", bn_eps, BN_EPS)):
        expect(value == default, name, f"{default} with norm {norm!r}", repr(value))
    if norm == "group":
        return lambda shape: GroupNorm(gcd(8, shape[0]), shape[0])
    return LayerNorm


def shape_after(layers: Sequence[Layer], shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of the output of some layers for one input."""
    for layer in layers:
        shape = layer.output_shape(tuple(shape))
    return tuple(shape)


def xavier_with_gain(gain: float) -> Any:
    """Xavier's initial weights with a gain."""
    gain = check_positive_number("weight_gain", gain)
    return xavier_uniform if gain == 1 else partial(xavier_uniform, gain=gain)


def zeros(rng: np.random.Generator, shape: tuple, fan_in: int, fan_out: int) -> np.ndarray:
    """The initial weights 0, which draw no random number."""
    return np.zeros(shape)


def convolution_options(downsample: str, padding: str) -> dict[str, Any]:
    """Stride and padding of conv4's convolutions."""
    if downsample == "max_pool":
        return {"padding": 1}
    return {"stride": 2, "padding": "same" if padding == "same" else 1}


def conv4_blocks(
    image: Sequence[int],
    channels: int,
    downsample: str,
    padding: str,
    norm_for: Callable[[tuple], Layer],
    init: Any,
) -> list[Layer]:
    """The four blocks of conv4: a convolution, a norm, a ReLU, and perhaps a pooling.

    norm_for  the norm of a block from the shape (C, H, W) of its convolution's output
    """
    where = convolution_options(downsample, padding)
    pooling = [] if downsample == "stride" else [MaxPool2d(2)]
    layers: list[Layer] = []
    for inputs in (image[0], channels, channels, channels):
        layers.append(Conv2d(inputs, channels, 3, **where, weight_init=init))
        layers += [norm_for(shape_after(layers, image)), ReLU(), *pooling]
    return layers


def classifier(
    layers: list[Layer], image: Sequence[int], n_way: int, head: str, start: Any
) -> list[Layer]:
    """What follows the blocks of conv4: vectors, then a linear layer.

    start  of the linear layer's weights; with head="mean" N(0, 1) takes the place of
           any but `zeros`
    """
    to_vectors = SpatialMean() if head == "mean" else Flatten()
    features = shape_after([*layers, to_vectors], image)
    init = standard_normal if head == "mean" and start is not zeros else start
    return [to_vectors, Linear(features[0], n_way, weight_init=init)]


def resnet12(
    width: int = 64,
    n_way: int = 5,
    image: Sequence[int] = (3, 84, 84),
    loss: Any = None,
    kernels: Any = None,
) -> Sequential:
    """The ResNet-12 of few-shot learning: four residual blocks, then a linear head.

    A block is three 3x3 convolutions without bias, each with a batch-norm, with leaky
    ReLUs (slope 0.1) between them; plus a shortcut, a 1x1 convolution with a
    batch-norm; a leaky ReLU after the sum; and a 2x2 max-pooling. The blocks have
    width, 2 width, 4 width and 8 width channels. The head takes the mean over
    positions.

    The widths are those of TADAM (64, 128, 256, 512 for width 64). The blocks are those
    of MetaOptNet's code, which has 64, 160, 320 and 640 channels and adds DropBlock:
    there is none here. Weights start as Xavier's.

    image  the shape (C, H, W) of an input, at least 16 x 16
    loss   CrossEntropy("mean") unless given; kernels: see Sequential
    Raises ArgumentError for other arguments, or images too small for the windows.
    Source: Oreshkin et al. 2018 (TADAM); Lee et al. 2019 (MetaOptNet).
    """
    image, width = check_task(n_way, image), check_integer("width", width)
    layers: list[Layer] = []
    inputs = image[0]
    for outputs in (width, 2 * width, 4 * width, 8 * width):
        layers += [residual_block(inputs, outputs), LeakyReLU(0.1), MaxPool2d(2)]
        inputs = outputs
    layers += [SpatialMean(), Linear(inputs, n_way)]
    return Sequential(layers, CrossEntropy() if loss is None else loss, image, kernels)


def residual_block(inputs: int, outputs: int) -> Residual:
    """The branch and the shortcut of a block of resnet12."""
    branch: list[Layer] = []
    for channels in (inputs, outputs, outputs):
        convolution = Conv2d(channels, outputs, 3, padding=1, bias=False)
        branch += [convolution, BatchNorm2d(outputs), LeakyReLU(0.1)]
    shortcut = [Conv2d(inputs, outputs, 1, bias=False), BatchNorm2d(outputs)]
    return Residual(branch[:-1], shortcut)


def mlp(
    sizes: Sequence[int] = (1, 40, 40, 1),
    activation: str = "relu",
    loss: Any = None,
    kernels: Any = None,
    init: str | None = None,
) -> Sequential:
    """Linear layers of the given sizes, with an activation between them.

    The default is MAML's sinusoid net.
    activation  "relu" or "tanh"
    loss        MSE("mean") unless given
    init        of the weights: "small", N(0, 0.01^2) as MAML's, or "xavier"; None:
                "small" with ReLU, "xavier" with tanh
    Raises ArgumentError unless sizes are two or more integers >= 1.
    """
    check_choice("activation", activation, tuple(ACTIVATIONS))
    known = isinstance(sizes, tuple | list | np.ndarray) and getattr(sizes, "ndim", 1) == 1
    wanted = "at least an input and an output size, integers >= 1"
    expect(known and len(sizes) >= 2, "sizes", wanted, lambda: repr(sizes))
    sizes = [check_integer("sizes", size) for size in sizes]
    init = ("small" if activation == "relu" else "xavier") if init is None else init
    weight_init = MLP_STARTS[check_choice("init", init, tuple(MLP_STARTS))]
    layers: list[Layer] = []
    for I, O in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [Linear(I, O, weight_init=weight_init), ACTIVATIONS[activation]()]
    return Sequential(layers[:-1], MSE() if loss is None else loss, (sizes[0],), kernels)


def two_layer_linear(dim: int, rank: int, loss: Any = None, kernels: Any = None) -> Sequential:
    """x -> B' x -> w' B' x: the linear representation model.

    "0.weight" is B' (rank, dim), "1.weight" is w' (1, rank).
    loss  half the mean squared error unless given, as in the paper
    Raises ArgumentError unless dim and rank are integers >= 1.
    Source: Collins et al. 2022.
    """
    dim, rank = check_integer("dim", dim), check_integer("rank", rank)
    layers = [Linear(dim, rank, bias=False), Linear(rank, 1, bias=False)]
    return Sequential(layers, MSE(factor=0.5) if loss is None else loss, (dim,), kernels)
