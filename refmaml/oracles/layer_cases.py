"""The layers and losses of every rung, with their settings and inputs.

`LAYERS` holds cases of every layer in the public list refmaml.layers.__all__. This
module is the one place that decides with which settings a layer is checked:

1. the settings in SETTINGS, if the class has an entry there;
2. else the result of the class's function `examples()`, if it has one: a list of
   (layer, shape of one input);
3. else the layer without arguments, on images and on vectors, as far as it accepts
   them.
"""

from dataclasses import MISSING, fields
from typing import NamedTuple

import numpy as np

from refmaml import layers
from refmaml.errors import ArgumentError
from refmaml.kernels.reference_set import reference
from refmaml.layers import (
    MSE,
    AvgPool2d,
    BatchNorm2d,
    BCEWithLogits,
    BoundedGaussianNLL,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    GaussianNLL,
    Huber,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Softplus,
    SpatialMean,
    Tanh,
    WeightedCrossEntropy,
)
from refmaml.oracles.kinks import layer_margin

REFERENCE = reference()
TASKS, EXAMPLES = 3, 4
# Inputs are drawn until no choice is nearer than this, relative to the largest input.
# A rounding of eps changes nothing that is 1e-4 away from a kink.
LAYER_MARGIN = 1e-4
IMAGE, VECTOR = (3, 4, 2), (5,)


class LayerCase(NamedTuple):
    """A layer with the shape of one input."""

    layer: object
    shape: tuple

    def __str__(self):
        return brief(self.layer)


def brief(layer):
    """Conv2d(2, 3, 3, stride=2): a layer or loss with its non-default fields."""
    given = [
        (f, getattr(layer, f.name)) for f in fields(layer) if getattr(layer, f.name) != f.default
    ]
    given = [(f, in_words(value)) for f, value in given]
    texts = [text if f.default is MISSING else f"{f.name}={text}" for f, text in given]
    return f"{type(layer).__name__}({', '.join(texts)})"


def in_words(value):
    """A field's value; the layers of a list in brief."""
    listed = isinstance(value, tuple) and any(hasattr(item, "r_forward") for item in value)
    return f"[{', '.join(map(brief, value))}]" if listed else str(value)


SETTINGS = {
    Conv2d: [
        (Conv2d(2, 3, 3), (2, 5, 6)),
        (Conv2d(2, 3, 3, stride=2, padding=1, bias=False), (2, 7, 6)),
        (Conv2d(2, 3, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0))), (2, 5, 6)),
        (Conv2d(2, 3, 3, stride=2, padding="same"), (2, 6, 7)),
        (Conv2d(3, 2, 1, stride=2), (3, 5, 4)),
    ],
    Linear: [(Linear(5, 3), VECTOR), (Linear(5, 3, bias=False), VECTOR)],
    BatchNorm2d: [
        (BatchNorm2d(3), IMAGE),
        (BatchNorm2d(3, eps=0.1, gamma=False), IMAGE),
        (BatchNorm2d(3, gamma=False, beta=False), IMAGE),
        (BatchNorm2d(4), (4,)),
    ],
    ReLU: [(ReLU(), IMAGE)],
    LeakyReLU: [(LeakyReLU(0.2), IMAGE)],
    Tanh: [(Tanh(), IMAGE)],
    Softplus: [(Softplus(), IMAGE)],
    MaxPool2d: [(MaxPool2d(2), (3, 4, 5)), (MaxPool2d((3, 2), stride=(1, 2)), (2, 5, 6))],
    AvgPool2d: [(AvgPool2d(2), (3, 4, 5)), (AvgPool2d((3, 2), stride=(1, 2)), (2, 5, 6))],
    SpatialMean: [(SpatialMean(), IMAGE)],
    Flatten: [(Flatten(), IMAGE)],
    Context: [(Context(2), IMAGE), (Context(2), VECTOR)],
    FiLM: [(FiLM(3, 2), IMAGE), (FiLM(4, 3), (4,))],
}

LOSSES = [
    *(CrossEntropy(r) for r in ("mean", "sum", "sum/K")),
    *(MSE(r) for r in ("mean", "sum", "sum/K")),
    MSE(factor=0.5),
    *(BCEWithLogits(r) for r in ("mean", "sum", "sum/K")),
    BCEWithLogits(pos_weight=(0.5, 1.0, 2.0, 3.0)),
    *(Huber(r) for r in ("mean", "sum", "sum/K")),
    Huber(delta=0.4),
    *(GaussianNLL(r) for r in ("mean", "sum", "sum/K")),
    GaussianNLL(full=True),
    *(BoundedGaussianNLL(r) for r in ("mean", "sum", "sum/K")),
    BoundedGaussianNLL(full=True, floor=0.3),
    *(WeightedCrossEntropy(r, 0.1, (0.5, 1.0, 0.0, 3.0)) for r in ("mean", "sum", "sum/K")),
    WeightedCrossEntropy(label_smoothing=0.2),
]


def layer_classes():
    """The classes of layers in the public list, losses left out, in its order."""
    public = (getattr(layers, name) for name in layers.__all__)
    return [cls for cls in public if hasattr(cls, "r_forward")]


def cases_of(cls):
    """The LayerCases of one layer class.

    Raises TypeError if the class needs arguments and no settings are known for it.
    """
    if cls in SETTINGS:
        return [LayerCase(*pair) for pair in SETTINGS[cls]]
    if hasattr(cls, "examples"):
        return [LayerCase(*pair) for pair in cls.examples()]
    try:
        layer = cls()
    except TypeError as error:
        raise TypeError(
            f"{cls.__name__}: expected no arguments, a function examples() or an entry in "
            f"refmaml.oracles.layer_cases.SETTINGS, got {error}"
        ) from None
    return [LayerCase(layer, shape) for shape in (IMAGE, VECTOR) if accepts(layer, shape)]


def accepts(layer, shape):
    """Whether a layer takes inputs of a shape."""
    try:
        layer.output_shape(shape)
    except ArgumentError:
        return False
    return True


DILATED_AND_GROUPED = [
    LayerCase(Conv2d(2, 3, 3, dilation=2, padding=2), (2, 5, 6)),
    LayerCase(
        Conv2d(1, 2, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0)), dilation=(3, 2)), (1, 6, 7)
    ),
    LayerCase(Conv2d(9, 9, 2, dilation=(1, 2)), (9, 4, 4)),
    LayerCase(Conv2d(4, 6, 3, stride=2, padding="same", dilation=2, groups=2), (4, 7, 6)),
    LayerCase(Conv2d(3, 3, (3, 2), groups=3, bias=False), (3, 4, 4)),
]
LAYERS = [case for cls in layer_classes() for case in cases_of(cls)] + DILATED_AND_GROUPED


def elementwise_layers():
    """Layers without arguments or parameters that keep any shape, one of each class."""
    found = {
        type(case.layer): case.layer
        for case in LAYERS
        if not fields(case.layer) and not case.layer.shapes()
    }
    return [
        layer
        for layer in found.values()
        if all(
            accepts(layer, shape) and layer.output_shape(shape) == shape
            for shape in (IMAGE, VECTOR)
        )
    ]


def layer_inputs(case, rng, dtype=np.float64):
    """(w, x): parameters of every task; inputs at least LAYER_MARGIN from a kink."""
    while True:
        w = {
            name: rng.standard_normal((TASKS, *shape)).astype(dtype)
            for name, shape in case.layer.shapes().items()
        }
        x = rng.standard_normal((TASKS, EXAMPLES, *case.shape)).astype(dtype)
        if layer_margin(case.layer, x, w=w, kernels=REFERENCE) > LAYER_MARGIN:
            return w, x


def loss_inputs(loss, rng, classes=4):
    """(z, targets) for a loss: outputs (T, N, D) and random targets."""
    z = rng.standard_normal((TASKS, EXAMPLES, classes))
    return z, random_targets(loss, rng, z.shape)


def random_targets(loss, rng, shape):
    """Targets of a loss for outputs of `shape` (T, N, D).

    A loss whose targets are neither labels nor real numbers of the outputs' shape has a
    function random_targets(rng, shape).
    """
    if hasattr(loss, "random_targets"):
        return loss.random_targets(rng, shape)
    if isinstance(loss, CrossEntropy):
        return rng.integers(0, shape[2], shape[:2])
    return rng.standard_normal(shape)
