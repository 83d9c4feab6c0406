"""The inputs every rung is tried on, as data: layers in all their variants, losses, and a net for the methods."""

from dataclasses import MISSING, fields
from typing import NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.layers import (
    MSE,
    AvgPool2d,
    BatchNorm2d,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Softplus,
    SpatialMean,
    Tanh,
)
from refmaml.methods import (
    ANIL,
    CAVIA,
    ERM,
    IMAML,
    MAML,
    FirstOrderANIL,
    FirstOrderMAML,
    MAMLPlusPlus,
    MetaSGD,
    Reptile,
)
from refmaml.oracles.kinks import layer_margin, net_margin
from refmaml.oracles.unrolled import inner_loop

TASKS, EXAMPLES = 3, 4
LAYER_MARGIN = 1e-4  # inputs are drawn until no choice is nearer than this: eps / 1e-4 is still far below any tolerance
NET_MARGIN = 1e-7  # along a whole inner loop; two correct trajectories differ by 1e-14 or so


class LayerCase(NamedTuple):
    """A layer with the shape of one input."""

    layer: object
    shape: tuple

    def __str__(self):
        return brief(self.layer)


def brief(layer):
    """Conv2d(2, 3, 3, stride=2): a layer or loss with the fields that differ from their defaults."""
    given = [
        (f, getattr(layer, f.name)) for f in fields(layer) if getattr(layer, f.name) != f.default
    ]
    texts = [str(value) if f.default is MISSING else f"{f.name}={value}" for f, value in given]
    return f"{type(layer).__name__}({', '.join(texts)})"


LAYERS = [
    LayerCase(Conv2d(2, 3, 3), (2, 5, 6)),
    LayerCase(Conv2d(2, 3, 3, stride=2, padding=1, bias=False), (2, 7, 6)),
    LayerCase(Conv2d(2, 3, (2, 3), stride=(1, 2), padding=((0, 1), (2, 0))), (2, 5, 6)),
    LayerCase(Conv2d(2, 3, 3, stride=2, padding="same"), (2, 6, 7)),
    LayerCase(Conv2d(3, 2, 1, stride=2), (3, 5, 4)),
    LayerCase(Linear(5, 3), (5,)),
    LayerCase(Linear(5, 3, bias=False), (5,)),
    LayerCase(BatchNorm2d(3), (3, 4, 2)),
    LayerCase(BatchNorm2d(3, eps=0.1, gamma=False), (3, 4, 2)),
    LayerCase(BatchNorm2d(3, gamma=False, beta=False), (3, 4, 2)),
    LayerCase(BatchNorm2d(4), (4,)),
    LayerCase(ReLU(), (3, 4, 2)),
    LayerCase(LeakyReLU(0.2), (3, 4, 2)),
    LayerCase(Tanh(), (3, 4, 2)),
    LayerCase(Softplus(), (3, 4, 2)),
    LayerCase(MaxPool2d(2), (3, 4, 5)),
    LayerCase(MaxPool2d((3, 2), stride=(1, 2)), (2, 5, 6)),
    LayerCase(AvgPool2d(2), (3, 4, 5)),
    LayerCase(AvgPool2d((3, 2), stride=(1, 2)), (2, 5, 6)),
    LayerCase(SpatialMean(), (3, 4, 2)),
    LayerCase(Flatten(), (3, 4, 2)),
    LayerCase(Context(2), (3, 4, 2)),
    LayerCase(Context(2), (5,)),
    LayerCase(FiLM(3, 2), (3, 4, 2)),
    LayerCase(FiLM(4, 3), (4,)),
]

LOSSES = [
    *(CrossEntropy(r) for r in ("mean", "sum", "sum/K")),
    *(MSE(r) for r in ("mean", "sum", "sum/K")),
    MSE(factor=0.5),
]


def layer_inputs(case, rng, dtype=np.float64):
    """(w, x): parameters of every task and inputs away from kinks, drawn until they are."""
    while True:
        w = {
            name: rng.standard_normal((TASKS, *shape)).astype(dtype)
            for name, shape in case.layer.shapes().items()
        }
        x = rng.standard_normal((TASKS, EXAMPLES, *case.shape)).astype(dtype)
        if layer_margin(case.layer, x) > LAYER_MARGIN:
            return w, x


def loss_inputs(loss, rng, classes=4):
    """(z, targets) for a loss: outputs (T, N, D), and labels or real targets."""
    z = rng.standard_normal((TASKS, EXAMPLES, classes))
    if isinstance(loss, CrossEntropy):
        return z, rng.integers(0, classes, (TASKS, EXAMPLES))
    return z, rng.standard_normal(z.shape)


def conv_net(context=False):
    """conv + batch-norm + ReLU + max-pool, twice, then a head; with context=True a FiLM layer in between, for CAVIA."""
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


def smooth_net():
    """The same shape without kinks, whose proximal problem a gradient descent in complex arithmetic can solve to rounding.

    The convolution has no bias: batch-norm would take it off again, its gradient would be pure rounding, and Adam's g / sqrt(v)
    would blow that up to a full step.
    """
    return Sequential(
        [
            Conv2d(1, 3, 3, bias=False),
            BatchNorm2d(3),
            Tanh(),
            AvgPool2d(2),
            Flatten(),
            Linear(12, 3),
        ],
        CrossEntropy(),
        (1, 6, 6),
    )


def tasks_for(net, rng, tasks=2, support=6, query=9):
    """A batch of random tasks, of different sizes so that no extent can stand in for another: labels, or real targets for squared error."""
    outputs = net.output_shape(net.input_shape)[0]

    def draw(examples):
        x = rng.standard_normal((tasks, examples, *net.input_shape))
        if isinstance(net.loss_function, CrossEntropy):
            return x, rng.integers(0, outputs, (tasks, examples))
        return x, rng.standard_normal((tasks, examples, outputs))

    return Batch(*draw(support), *draw(query))


def start(net, rng):
    """A point (P,) at which no parameter is 0 or 1 by construction."""
    return net.init(rng, np.float64) + 0.1 * rng.standard_normal(net.num_params)


def method_case(net, rates, seed=0):
    """(theta, batch, margin): a start and tasks drawn until every pass of the inner loop stays away from kinks.

    rates: the step sizes A_0 .. A_{K-1} of the loop that is to be followed.
    """
    rng = np.random.default_rng(seed)
    while True:
        theta, batch = start(net, rng), tasks_for(net, rng)
        margin = np.inf
        phis = inner_loop(net, theta[None], rates, batch.x_support, batch.y_support)
        for phi in phis:
            margin = min(
                margin, net_margin(net, phi, batch.x_support), net_margin(net, phi, batch.x_query)
            )
        if margin > NET_MARGIN:
            return theta, batch, margin


def first_order_of(method):
    """First-order MAML with the fields of a MAML."""
    return FirstOrderMAML(method.inner_lr, method.inner_steps, method.adapts, method.frozen)


def methods(inner_lr=0.3, inner_steps=5):
    """Every method whose meta-gradient is the derivative of something, with whether it needs a net with context."""
    K = {"inner_lr": inner_lr, "inner_steps": inner_steps}
    frozen = {"frozen": ("BatchNorm2d",)}
    return [
        (MAML(**K), False),
        (MAML(**K, **frozen), False),
        (ANIL(**K), False),
        (MetaSGD(**K), False),
        (MetaSGD(**K, **frozen), False),
        (MAMLPlusPlus(**K), False),
        (MAMLPlusPlus(**K, **frozen), False),
        (MAMLPlusPlus(**K, loss_weights=(0.1, 0.0, 0.3, 0.2, 0.4)[:inner_steps]), False),
        (CAVIA(**K), True),
        (FirstOrderMAML(**K), False),
        (FirstOrderANIL(**K), False),
        (ERM(), False),
    ]


def converged_imaml():
    """iMAML with inner and outer solves run down to rounding, by both solvers, and with some parameters that do not adapt."""
    exact = {"regularization": 2.0, "inner_tol": 0.0, "cg_steps": 100, "cg_tol": 1e-15}
    return [
        IMAML(**exact, inner_steps=40, inner_lr=0.2, solver="newton_cg"),
        IMAML(**exact, inner_steps=40, inner_lr=0.2, solver="newton_cg", frozen=("BatchNorm2d",)),
    ]


def reptiles():
    """Reptile with each inner optimiser, on the whole support set and on mini-batches."""
    adam = {"optimizer": "adam", "inner_batch": 4}
    return [
        Reptile(0.1, 5),
        Reptile(0.1, 5, inner_batch=4),
        Reptile(0.01, 5, **adam),
        Reptile(0.01, 5, **adam, moment="carried"),
    ]
