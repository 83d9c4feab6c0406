"""Nets, layers and methods that Hypothesis draws; the same ones in every run.

DRAWN=20 in the environment: twenty times as many, and others each time.

Every extent is small, and none has to be even, equal to another or larger than 1. One
case is left out, because a check of derivatives has no meaning there: a max-pooling of
equal numbers, as after a ReLU and another layer.
"""

import os
from math import prod

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import refmaml as rm
from refmaml.layers import Context, FiLM, SpatialMean
from refmaml.layers.dropout import reseeded
from refmaml.oracles.cases import LayerCase, elementwise_layers

MORE = int(os.environ.get("DRAWN", "1"))
# A new elementwise layer of the public list is drawn as well.
SMOOTH = st.sampled_from(
    [layer for layer in elementwise_layers() if not isinstance(layer, rm.ReLU)]
)
SMOOTH |= st.sampled_from(
    [rm.GELU(), rm.GELU("tanh"), rm.ELU(0.5), rm.Softmax(), rm.LogSoftmax(), rm.Dropout(0.2)]
)
PIECEWISE = st.sampled_from([rm.ReLU(), rm.LeakyReLU(0.2), rm.LeakyReLU(0.01)])
LOSSES = st.builds(rm.CrossEntropy, st.sampled_from(["mean", "sum", "sum/K"])) | st.builds(
    rm.MSE, st.sampled_from(["mean", "sum", "sum/K"]), st.sampled_from([1.0, 0.5])
)
LOSSES |= st.sampled_from(
    [rm.BCEWithLogits(), rm.Huber("sum/K"), rm.WeightedCrossEntropy("mean", 0.1)]
)


def drawing(examples):
    """Hypothesis's settings for a test with so many examples.

    There is no deadline: the first example of a kind is compiled.
    """
    return settings(
        max_examples=examples * MORE,
        derandomize=MORE == 1,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


PADDINGS = st.one_of(st.just(0), st.just("same"), pairs(0, 2), st.tuples(pairs(0, 2), pairs(0, 2)))
CHANNELS = st.sampled_from([1, 2, 3, 5, 9])


@st.composite
def convolutions(draw, shape):
    """A Conv2d that fits inputs of a shape."""
    (C, H, W), bias = shape, draw(st.booleans())
    window = draw(st.tuples(st.integers(1, min(H, 4)), st.integers(1, min(W, 4))))
    return rm.Conv2d(C, draw(CHANNELS), window, draw(pairs(1, 3)), draw(PADDINGS), bias)


@st.composite
def batch_norms(draw, shape):
    return rm.BatchNorm2d(
        shape[0], draw(st.sampled_from([1e-5, 1e-3, 0.1])), draw(st.booleans()), draw(st.booleans())
    )


@st.composite
def norms(draw, shape):
    """Any norm. Two or three numbers in a group are almost their signs, whatever they
    are, and their derivatives almost 0: a group has four or more.
    """
    C, numbers = shape[0], prod(shape)
    groups = [G for G in range(1, C + 1) if C % G == 0 and numbers // G >= 4]
    eps, affine = draw(st.sampled_from([1e-5, 1e-3, 0.1])), draw(st.booleans())
    kinds = [batch_norms(shape)]
    if groups:
        kinds.append(st.just(rm.GroupNorm(draw(st.sampled_from(groups)), C, eps, affine)))
        kinds.append(st.just(rm.LayerNorm(shape, eps, affine, draw(st.booleans()))))
    if C in groups and len(shape) == 3:
        kinds.append(st.just(rm.InstanceNorm2d(C, eps, affine)))
    return draw(st.one_of(kinds))


@st.composite
def poolings(draw, shape, kinds=(rm.MaxPool2d, rm.AvgPool2d)):
    _, H, W = shape
    window = draw(st.tuples(st.integers(1, min(H, 3)), st.integers(1, min(W, 3))))
    return draw(st.sampled_from(kinds))(window, draw(st.none() | pairs(1, 3)))


@st.composite
def layer_cases(draw):
    """Any layer with the shape of an input that fits it."""
    vectors, images = (
        st.tuples(st.integers(1, 9)),
        st.tuples(CHANNELS, st.integers(1, 7), st.integers(1, 7)),
    )
    shape = draw(images)
    kind = draw(st.sampled_from(["conv", "norm", "pool", "act", "film", "linear", "vectors"]))
    if kind == "linear":
        shape = draw(vectors)
        return LayerCase(rm.Linear(shape[0], draw(CHANNELS), draw(st.booleans())), shape)
    if kind == "vectors":
        shape = draw(vectors)
        return LayerCase(
            draw(
                st.one_of(
                    norms(shape), SMOOTH, PIECEWISE, st.just(Context(2)), st.just(FiLM(shape[0], 2))
                )
            ),
            shape,
        )
    layer = {
        "conv": convolutions(shape),
        "norm": norms(shape),
        "pool": poolings(shape),
        "act": SMOOTH | PIECEWISE,
        "film": st.sampled_from([FiLM(shape[0], 3), Context(2), SpatialMean(), rm.Flatten()]),
    }[kind]
    return LayerCase(draw(layer), shape)


class Grown:
    """A net as it grows: its layers and the shape behind them."""

    def __init__(self, shape):
        self.layers, self.shape, self.input_shape = [], shape, shape

    def add(self, layer):
        self.layers.append(layer)
        self.shape = layer.output_shape(self.shape)

    def pools(self):
        """The poolings that may follow.

        After a ReLU, overlapping windows or a softmax over one channel, a max-pooling
        would meet equal numbers.
        """
        zeros, ones = rm.ReLU | rm.MaxPool2d | rm.Dropout, rm.Softmax | rm.LogSoftmax
        equal = (
            any(isinstance(layer, zeros) for layer in self.layers[:-1])
            or any(isinstance(layer, ones) for layer in self.layers)
            or isinstance(self.layers[-1], rm.MaxPool2d)
        )
        return (rm.AvgPool2d,) if equal else (rm.MaxPool2d, rm.AvgPool2d)


@st.composite
def nets(draw, context=False):
    """Convolutions or linear layers, other layers between them, and a head."""
    images = draw(st.booleans())
    grown = Grown(
        draw(
            st.tuples(st.integers(1, 3), *[st.integers(2, 8)] * 2)
            if images
            else st.tuples(st.integers(1, 6))
        )
    )
    for _ in range(draw(st.integers(1, 3))):
        grown.add(
            draw(convolutions(grown.shape))
            if images
            else rm.Linear(grown.shape[0], draw(CHANNELS), draw(st.booleans()))
        )
        for kind in draw(st.lists(st.sampled_from(["norm", "act", "pool", "film"]), unique=True)):
            if kind == "norm":
                grown.add(draw(norms(grown.shape)))
            if kind == "act":
                grown.add(draw(SMOOTH | PIECEWISE))
            if kind == "pool" and images:
                grown.add(draw(poolings(grown.shape, grown.pools())))
            if kind == "film" and context:
                grown.add(FiLM(grown.shape[0], 2))
    if images:
        grown.add(draw(st.sampled_from([rm.Flatten(), SpatialMean()])))
    if context and not any(isinstance(layer, FiLM) for layer in grown.layers):
        grown.add(Context(2))
    grown.add(rm.Linear(grown.shape[0], draw(st.integers(2, 4)), draw(st.booleans())))
    return rm.Sequential(reseeded(grown.layers, 0), draw(LOSSES), grown.input_shape)


@st.composite
def methods(draw, net):
    """A method whose meta-gradient is the derivative of a meta-objective.

    Few and small steps, so that a steep net does not diverge.
    """
    K = draw(st.integers(1, 3))
    given = {"inner_lr": draw(st.sampled_from([0.01, 0.03])), "inner_steps": K}
    if any(isinstance(layer, Context | FiLM) for layer in net.layers):
        return rm.CAVIA(**given)
    kind = draw(
        st.sampled_from(
            [rm.MAML, rm.MetaSGD, rm.MAMLPlusPlus, rm.FirstOrderMAML, rm.ANIL, rm.FirstOrderANIL]
        )
    )
    if kind is rm.MAMLPlusPlus:
        given["loss_weights"] = draw(
            st.none() | st.tuples(*[st.sampled_from([0.0, 0.3, 1.0])] * (K - 1), st.just(0.5))
        )
    if kind in (rm.MAML, rm.ANIL):
        given["recompute"] = draw(st.booleans())
    if kind not in (rm.ANIL, rm.FirstOrderANIL):
        groups = sorted(
            {name.partition(".")[0] + ".*" for name in net.shapes}
            | {"*." + name.partition(".")[2] for name in net.shapes}
        )
        given["frozen"] = tuple(draw(st.lists(st.sampled_from(groups), unique=True, max_size=2)))
    return kind(**given)
