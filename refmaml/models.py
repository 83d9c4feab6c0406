"""Ready nets."""

from functools import partial

from refmaml.errors import expect
from refmaml.execution import Sequential
from refmaml.layers import (
    MSE,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    SpatialMean,
    Tanh,
)
from refmaml.layers.initialise import small_normal, standard_normal, xavier_uniform

ACTIVATIONS = {"relu": ReLU, "tanh": Tanh}


def conv4(
    n_way=5,
    channels=64,
    image=(1, 28, 28),
    downsample="stride",
    padding="same",
    head="mean",
    bn_gamma=False,
    bn_eps=1e-3,
    weight_gain=1.0,
    loss=None,
    kernels=None,
):
    """The four-block convolutional net of few-shot learning: 4 x [3x3 convolution, batch-norm, ReLU], then a linear head.

    The defaults are MAML's own Omniglot net (finn/maml, maml.py): convolutions with stride 2 and TensorFlow's "same" padding
    (28 -> 14 -> 7 -> 4 -> 2), a batch-norm with beta only and eps 1e-3, the mean over positions, a head that starts as N(0, 1).

    downsample  "stride", or "max_pool": convolutions with stride 1 and padding 1, a 2x2 max-pool after each ReLU
    padding     of strided convolutions: "same" as TensorFlow means it, or "torch", one row on every side, as PyTorch's nets have it
    head        "mean" over positions, or "flatten"
    bn_gamma    whether batch-norm has a scale; bn_eps its epsilon (PyTorch's default is 1e-5)
    weight_gain a factor on the weights' Xavier start (iMAML's code: 1.73); not on a head of N(0, 1)
    loss        CrossEntropy("mean") unless given
    """
    expect(padding in ("same", "torch"), "padding", "'same' or 'torch'", repr(padding))
    expect(
        downsample in ("stride", "max_pool"),
        "downsample",
        "'stride' or 'max_pool'",
        repr(downsample),
    )
    expect(head in ("mean", "flatten"), "head", "'mean' or 'flatten'", repr(head))
    expect(n_way >= 2, "n_way", "at least 2 classes", repr(n_way))
    layers, C, xavier = (
        [],
        image[0],
        xavier_uniform if weight_gain == 1 else partial(xavier_uniform, gain=weight_gain),
    )
    strided = downsample == "stride"
    where = (
        {"stride": 2, "padding": "same" if padding == "same" else 1} if strided else {"padding": 1}
    )
    for _ in range(4):
        layers += [
            Conv2d(C, channels, 3, **where, weight_init=xavier),
            BatchNorm2d(channels, eps=bn_eps, gamma=bn_gamma),
            ReLU(),
        ]
        layers += [] if strided else [MaxPool2d(2)]
        C = channels
    layers.append(SpatialMean() if head == "mean" else Flatten())
    features = features_of(layers, image)
    layers.append(
        Linear(features, n_way, weight_init=standard_normal if head == "mean" else xavier)
    )
    return Sequential(layers, loss or CrossEntropy(), image, kernels)


def features_of(layers, shape):
    """How many numbers `layers` make of one input."""
    for layer in layers:
        shape = layer.output_shape(shape)
    return shape[0]


def mlp(sizes=(1, 40, 40, 1), activation="relu", loss=None, kernels=None):
    """Linear layers of the given sizes with an activation in between; the default is MAML's sinusoid net.

    activation  "relu" (weights start as N(0, 0.01^2), as MAML's) or "tanh" (Xavier)
    loss        MSE("mean") unless given
    """
    expect(
        activation in ACTIVATIONS,
        "activation",
        f"one of {', '.join(ACTIVATIONS)}",
        repr(activation),
    )
    expect(len(sizes) >= 2, "sizes", "at least an input and an output size", repr(sizes))
    init = small_normal if activation == "relu" else xavier_uniform
    layers = []
    for I, O in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [Linear(I, O, weight_init=init), ACTIVATIONS[activation]()]
    return Sequential(layers[:-1], loss or MSE(), (sizes[0],), kernels)


def two_layer_linear(dim, rank, loss=None, kernels=None):
    """x -> B' x -> w' B' x: the linear representation model of Collins et al. 2022; "0.weight" is B' (rank, dim), "1.weight" is w'.

    loss  half the mean squared error unless given, as in the paper
    """
    layers = [Linear(dim, rank, bias=False), Linear(rank, 1, bias=False)]
    return Sequential(layers, loss or MSE(factor=0.5), (dim,), kernels)
