"""The inputs of every rung, as data: layers, losses, nets, tasks and methods."""

from dataclasses import fields

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Tanh,
)
from refmaml.methods import table, table_entry
from refmaml.oracles.kinks import net_margin
from refmaml.oracles.layer_cases import (
    EXAMPLES,
    LAYER_MARGIN,
    LAYERS,
    LOSSES,
    TASKS,
    LayerCase,
    brief,
    elementwise_layers,
    layer_inputs,
    loss_inputs,
    random_targets,
)
from refmaml.oracles.meta_objectives import inner_loop

__all__ = [
    "EXAMPLES",
    "LAYER_MARGIN",
    "LAYERS",
    "LOSSES",
    "TASKS",
    "LayerCase",
    "brief",
    "elementwise_layers",
    "layer_inputs",
    "loss_inputs",
    "random_targets",
]

# The least distance from a kink along a whole inner loop. Two correct trajectories
# differ by about 1e-14.
NET_MARGIN = 1e-7


def conv_net(context=False):
    """Twice convolution, batch-norm, ReLU and max-pooling, then a head.

    context=True: with a FiLM layer in between, whose context CAVIA adapts.
    """
    film = [FiLM(4, 3)] if context else []
    return Sequential(
        [
            Conv2d(1, 4, 3, padding=1),
            BatchNorm2d(4),
            ReLU(),
            MaxPool2d(2),
            Conv2d(4, 4, 3),
            BatchNorm2d(4),
            *film,
            ReLU(),
            MaxPool2d(2),
            Flatten(),
            Linear(4, 3),
        ],
        CrossEntropy(),
        (1, 9, 9),
    )


def smooth_net(context=False):
    """A net without kinks: gradient descent in complex arithmetic converges.

    context=True: with a FiLM layer, whose context CAVIA adapts.
    The convolution has no bias: batch-norm would subtract it again, its gradient would
    be pure rounding, and Adam's g / sqrt(v) would make a full step of that.
    """
    film = [FiLM(3, 2)] if context else []
    return Sequential(
        [
            Conv2d(1, 3, 3, bias=False),
            BatchNorm2d(3),
            *film,
            Tanh(),
            AvgPool2d(2),
            Flatten(),
            Linear(12, 3),
        ],
        CrossEntropy(),
        (1, 6, 6),
    )


def nets_without_weights_first():
    """{name: net} of nets with layers before the first convolution or linear layer.

    Batch-norm's parameters are then the first of the net, or a layer that needs no
    derivative of its input is followed by one with parameters.
    """
    image, vector = (2, 8, 6), (5,)
    conv = [Conv2d(2, 3, 3, bias=False), Tanh(), Flatten()]
    starts = {
        "batch-norm first, images": (image, [BatchNorm2d(2)]),
        "batch-norm first, vectors": (vector, [BatchNorm2d(5)]),
        "batch-norm without gamma and beta first": (
            image,
            [BatchNorm2d(2, gamma=False, beta=False)],
        ),
        "average pooling first": (image, [AvgPool2d((2, 1))]),
        "max-pooling first": (image, [MaxPool2d((2, 1))]),
        "activation first, images": (image, [ReLU()]),
        "activation first, vectors": (vector, [Tanh()]),
        "pooling, then batch-norm first": (image, [AvgPool2d((2, 1)), BatchNorm2d(2)]),
        "activation, then batch-norm first": (vector, [ReLU(), BatchNorm2d(5)]),
    }
    nets = {}
    for name, (shape, start_layers) in starts.items():
        layers = [*start_layers, *(conv if shape == image else [])]
        features = shape
        for layer in layers:
            features = layer.output_shape(features)
        nets[name] = Sequential([*layers, Linear(features[0], 3)], CrossEntropy(), shape)
    return nets


def tasks_for(net, rng, tasks=2, support=6, query=9):
    """A batch of random tasks with targets of the kind that the net's loss takes.

    All extents differ, so that using one in place of another is an error that shows.
    """
    outputs = net.output_shape(net.input_shape)[0]

    def draw(examples):
        x = rng.standard_normal((tasks, examples, *net.input_shape))
        return x, random_targets(net.loss_function, rng, (tasks, examples, outputs))

    return Batch(*draw(support), *draw(query))


def start(net, rng):
    """A point (P,) at which no parameter is 0 or 1 by construction."""
    return net.init(rng, np.float64) + 0.1 * rng.standard_normal(net.num_params)


def method_case(net, rates, seed=0, method=None):
    """(theta, batch, margin): a start and tasks with no kink near any pass of the loop.

    rates: the step sizes A_0 .. A_{K-1} of the inner loop. method: see `inner_loop`.
    """
    rng = np.random.default_rng(seed)
    while True:
        theta, batch = start(net, rng), tasks_for(net, rng)
        margin = np.inf
        phis = inner_loop(net, theta[None], rates, batch.x_support, batch.y_support, method)
        for phi in phis:
            margin = min(
                margin, net_margin(net, phi, batch.x_support), net_margin(net, phi, batch.x_query)
            )
        if margin > NET_MARGIN:
            return theta, batch, margin


def case_methods(entry, inner_lr=0.3, inner_steps=5):
    """The methods of an Entry of the table, one for each of its settings.

    inner_lr, inner_steps: used where the method has these fields and the settings do
    not name them.
    """
    known = {f.name for f in fields(entry.cls)}
    common = {"inner_lr": inner_lr, "inner_steps": inner_steps}
    common = {name: value for name, value in common.items() if name in known}
    return [entry.cls(**(common | settings)) for settings in entry.checked_with]


def methods(inner_lr=0.3, inner_steps=5):
    """[(method, whether it needs a net with context)] for rung 4.

    These are the methods whose meta-gradient is the derivative of a meta-objective that
    a loop of K steps in complex arithmetic evaluates, MAML first.
    """
    return [
        (method, entry.context)
        for entry in table.TABLE
        if entry.gradient in (table_entry.DERIVATIVE, table_entry.FIRST_ORDER)
        for method in case_methods(entry, inner_lr, inner_steps)
    ]


def methods_with(gradient):
    """The checked methods whose meta_gradient returns `gradient`; see table.py."""
    entries = (entry for entry in table.TABLE if entry.gradient == gradient)
    return [method for entry in entries for method in case_methods(entry)]
