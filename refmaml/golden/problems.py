"""The nets, tasks and methods of the golden vectors, and how their inputs are drawn.

Every input and every hyperparameter is a number that float32 holds exactly, so that float32 and float64 implementations start from the same
numbers; all extents that could stand in for one another differ.
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.golden.intermediates import points
from refmaml.layers import BatchNorm2d, Conv2d, CrossEntropy, FiLM, Flatten, Linear, MaxPool2d, ReLU
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
from refmaml.models import conv4, mlp, two_layer_linear
from refmaml.oracles import cases
from refmaml.oracles.kinks import net_margin
from refmaml.oracles.net_checks import method_terms
from refmaml.quadratic import Quadratic
from refmaml.tasks import Quadratics

ALPHA, STRENGTH = 0.25, 2.0
# Activations and gaps of pooling windows at least 20 roundings of float32 from a kink, relative to the largest: no right implementation
# in float32 takes another branch.
MARGIN = 20 * float(np.finfo(np.float32).eps)
TASKS, SUPPORT, QUERY = 3, 5, 7

K3 = {"inner_lr": ALPHA, "inner_steps": 3}
PROXIMAL = {"regularization": STRENGTH, "inner_lr": 0.125, "inner_steps": 4, "cg_steps": 3}
SOLVED = {
    "regularization": STRENGTH,
    "inner_steps": 30,
    "solver": "newton_cg",
    "cg_steps": 100,
    "cg_tol": 1e-15,
}

LOOPS = {
    "erm": ERM(),
    "maml-1": MAML(ALPHA, 1),
    "maml-3": MAML(**K3),
    "fomaml-3": FirstOrderMAML(**K3),
    "meta-sgd-2": MetaSGD(ALPHA, 2),
    "mamlpp-3": MAMLPlusPlus(**K3, loss_weights=(0.25, 0.25, 0.5)),
    "reptile-3": Reptile(**K3),
    "imaml": IMAML(**PROXIMAL),
}
HEADS = {"anil-3": ANIL(**K3), "fo-anil-3": FirstOrderANIL(**K3)}
BATCHES = {"reptile-minibatch-3": Reptile(**K3, inner_batch=2)}
# Not where a bias is before batch-norm: its gradient is 0 but for rounding, and g / sqrt(v) would make a full step of that.
ADAM = {"reptile-adam-3": Reptile(0.0625, 3, optimizer="adam", inner_batch=2, eps=2.0**-20)}
SMOOTH = {"imaml-solved": IMAML(**SOLVED)}
FROZEN = {
    "maml-3-frozen-bn": MAML(**K3, frozen=("BatchNorm2d",)),
    "meta-sgd-2-frozen-bn": MetaSGD(ALPHA, 2, frozen=("BatchNorm2d",)),
}


class Problem(NamedTuple):
    """A net with methods to run on it, {name: method}, all on the same parameters and tasks."""

    title: str
    net: Any
    methods: dict


def conv_net(film=False):
    """Two blocks of convolution, batch-norm and ReLU, the first with max-pooling; with film=True a FiLM layer between them, for CAVIA."""
    return Sequential(
        [
            Conv2d(1, 2, 3, padding=1),
            BatchNorm2d(2),
            ReLU(),
            MaxPool2d(2),
            *([FiLM(2, 3)] if film else []),
            Conv2d(2, 4, 2),
            BatchNorm2d(4),
            ReLU(),
            Flatten(),
            Linear(16, 3),
        ],
        CrossEntropy(),
        (1, 6, 6),
    )


def problems():
    """{name: Problem}."""
    return {
        "quadratic": Problem(
            "1/2 (w - c)' A (w - c): x holds A, y holds c", Quadratic(7), LOOPS | SMOOTH
        ),
        "mlp": Problem(
            "linear, tanh, linear; cross-entropy",
            mlp((2, 5, 3), "tanh", CrossEntropy()),
            LOOPS | HEADS | BATCHES | ADAM | SMOOTH,
        ),
        "two-layer-linear": Problem(
            "linear, linear, no biases; half the mean squared error",
            two_layer_linear(4, 2),
            LOOPS | HEADS | BATCHES | ADAM,
        ),
        "conv": Problem(
            "convolution, batch-norm, ReLU, max-pooling, convolution, batch-norm, ReLU, linear; cross-entropy",
            conv_net(),
            LOOPS | HEADS | BATCHES | FROZEN,
        ),
        "strided": Problem(
            "four blocks of convolution with stride 2 and 'same' padding, batch-norm with beta only, ReLU; cross-entropy",
            conv4(3, channels=2, image=(1, 18, 18)),
            LOOPS | HEADS | FROZEN,
        ),
        "film": Problem(
            "the conv net with a FiLM layer after pooling, whose context CAVIA adapts",
            conv_net(True),
            {"cavia-2": CAVIA(ALPHA, 2), "maml-1": MAML(ALPHA, 1)},
        ),
    }


def draw(problem, seed=0):
    """(theta (P,), direction v (P,), batch, {method: meta (M,)}, margin) in float64, drawn until no kink is near any point that a method
    looks at; see MARGIN."""
    rng = np.random.default_rng(seed)
    while True:
        theta, v = (
            exact(start(problem.net, rng)),
            exact(rng.standard_normal(problem.net.num_params)),
        )
        batch = tasks(problem.net, rng)
        metas = {
            name: meta_parameters(problem.net, method, theta, rng)
            for name, method in problem.methods.items()
        }
        margin = min(
            distance(problem.net, method, metas[name], batch)
            for name, method in problem.methods.items()
        )
        if margin > MARGIN:
            return theta, v, batch, metas, margin


def exact(a):
    """The nearest numbers that float32 holds, as float64."""
    return a.astype(np.float32).astype(np.float64)


def start(net, rng):
    """A point (P,) at which nothing is 0 or 1 by construction."""
    return net.init(rng) if isinstance(net, Quadratic) else cases.start(net, rng)


def tasks(net, rng):
    """A batch that float32 holds."""
    if isinstance(net, Quadratic):
        batch = Quadratics(net.num_params).sample(TASKS, seed=int(rng.integers(1 << 30)))
    else:
        batch = cases.tasks_for(net, rng, TASKS, SUPPORT, QUERY)
    return batch.astype(np.float32).astype(np.float64)


def meta_parameters(net, method, theta, rng):
    """[theta, rates]: rates, where they are learned and not held at 0, drawn around alpha, so that none can stand in for another."""
    meta = method.init(net, theta)
    rates = meta[net.num_params :]
    rates *= exact(rng.uniform(0.5, 1.5, rates.shape))
    return meta


def distance(net, method, meta, batch):
    """How near the net comes to a kink at any point the method looks at; infinite for a net without."""
    if isinstance(net, Quadratic):
        return np.inf
    phis = points(net, method, meta, batch, method.meta_gradient(net, meta, batch, trace=True))
    return min(net_margin(net, phi, x) for phi in phis for x in (batch.x_support, batch.x_query))


def terms(net, method, batch):
    """How many numbers a meta-gradient sums from end to end; see oracles/tolerance.py."""
    if isinstance(net, Quadratic):
        return 3 * (getattr(method, "inner_steps", 0) + 1) * net.num_params**2
    return int(method_terms(method, net, batch))


def batch_of(arrays):
    """The Batch in a problem's input arrays."""
    return Batch(*(arrays[name] for name in Batch.__dataclass_fields__))
