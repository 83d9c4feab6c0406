"""Nets with residual sums, group norms and groups of channels, for whole_net_checks.py.

Each has the cases that a memory plan tells apart: inputs of a sum with and without an
activation that changes the sum's adjoint, sums at the start of a net and inside others,
shortcuts without layers, norms and activations as the first layer of a branch. Groups
of a norm have more than a few numbers: derivatives of small groups nearly vanish, and
their float32 rounding is large (layers/group_norm.md).
"""

from refmaml.execution import Sequential
from refmaml.layers import (
    GELU,
    MSE,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    SpatialMean,
    Tanh,
)
from refmaml.models import conv4, residual_block


def nets_of_parts():
    """{name: net}."""
    return {
        "residual blocks": residual_blocks(),
        "residual sums inside others": nested_sums(),
        "residual vectors": residual_vectors(),
        "group norm conv4": conv4(4, channels=6, image=(1, 18, 20), norm="group"),
        "layer and instance norm": other_norms(),
        "groups of channels": groups_of_channels(),
    }


def residual_blocks():
    """Two blocks of resnet12 with what is behind each of them."""
    layers = [
        *(residual_block(1, 3), LeakyReLU(0.1), MaxPool2d(2)),
        *(residual_block(3, 2), LeakyReLU(0.1), MaxPool2d(2)),
        *(SpatialMean(), Linear(2, 4)),
    ]
    return Sequential(layers, CrossEntropy(), (1, 4, 5))


def nested_sums():
    """Sums in sums, of normalised and activated terms; a norm first in a branch."""
    inner = Residual([Conv2d(5, 5, 3, padding=1), BatchNorm2d(5), ReLU()])
    first = [BatchNorm2d(5), LeakyReLU(0.1), Conv2d(5, 5, 3, padding=1), GroupNorm(5, 5)]
    layers = [
        Conv2d(2, 5, 2),
        Residual([inner, Conv2d(5, 5, 1), GroupNorm(1, 5), ReLU()], [inner]),
        Residual(first, [Residual([GELU(), Conv2d(5, 5, 1)])]),
        *(BatchNorm2d(5), GELU(), SpatialMean(), Linear(5, 3)),
    ]
    return Sequential(layers, CrossEntropy(), (2, 5, 6))


def residual_vectors():
    """Sums of vectors; the first one reads the net's input, flattened."""
    layers = [
        Flatten(),
        Residual([Linear(6, 6), LayerNorm(6), LeakyReLU(0.2)]),
        *(Tanh(), Residual([Tanh(), Linear(6, 4)], [Linear(6, 4, bias=False)])),
        Residual([Linear(4, 4), GELU()]),
        Linear(4, 2),
    ]
    return Sequential(layers, MSE(), (3, 1, 2))


def other_norms():
    """A gamma for each number of an image; groups of one channel; no gamma, no beta."""
    layers = [
        *(Conv2d(1, 18, 3), LayerNorm((18, 5, 6)), ReLU(), MaxPool2d((1, 2))),
        *(Conv2d(18, 6, 2), InstanceNorm2d(6), LeakyReLU(0.1)),
        *(Conv2d(6, 4, 2), LayerNorm((4, 3, 1), bias=False), GELU(), Flatten()),
        *(Linear(12, 8), GroupNorm(2, 8, affine=False), ReLU(), Linear(8, 3)),
    ]
    return Sequential(layers, CrossEntropy("sum"), (1, 7, 8))


def groups_of_channels():
    """Two groups at the net's input, strides and dilation, and each channel alone."""
    layers = [
        *(Conv2d(4, 18, 3, stride=2, padding=1, groups=2), BatchNorm2d(18), ReLU()),
        *(Conv2d(18, 6, (2, 3), padding=(0, 1), dilation=(2, 1), groups=3), Tanh()),
        *(Conv2d(6, 6, 2, groups=6), GroupNorm(3, 6), SpatialMean(), Linear(6, 3)),
    ]
    return Sequential(layers, CrossEntropy(), (4, 9, 8))
