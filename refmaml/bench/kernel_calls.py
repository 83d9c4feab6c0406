"""The calls of kernels that nets make: a net runs once with a kernel set that notes every call and keeps copies of its arguments."""

from typing import NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.kernels import KernelSet
from refmaml.layers import (
    AvgPool2d,
    BatchNorm2d,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    LeakyReLU,
    Linear,
    Softplus,
    Tanh,
)
from refmaml.methods import IMAML, MAML, Reptile
from refmaml.models import conv4, mlp

METHODS = (
    MAML(inner_lr=0.01, inner_steps=2),
    IMAML(2.0, inner_steps=1, cg_steps=1),
    Reptile(0.01, inner_steps=1, optimizer="adam"),
)


class Call(NamedTuple):
    """A kernel with the arguments it was called with; net: whose call it was."""

    net: str
    kernel: str
    arguments: tuple


def shapes(arguments):
    """The shapes of the arrays, and whatever else decides what a kernel does."""
    return tuple(a.shape if isinstance(a, np.ndarray) else getattr(a, "name", a) for a in arguments)


def nets():
    """{name: (net, tasks, examples)}: the benchmark's nets, and one with every other layer."""
    every = Sequential(
        [
            Context(2),
            Conv2d(3, 32, 3, padding=1),
            BatchNorm2d(32),
            FiLM(32, 4),
            LeakyReLU(0.1),
            AvgPool2d(2),
            Conv2d(32, 32, 3),
            Softplus(),
            Flatten(),
            Linear(32 * 144, 64),
            Tanh(),
            Linear(64, 5),
        ],
        CrossEntropy(),
        (1, 28, 28),
    )
    return {
        "strided": (conv4(), 32, 5),
        "max-pool": (conv4(downsample="max_pool", bn_gamma=True), 4, 75),
        "every layer": (every, 8, 20),
        "sinusoid": (mlp(), 25, 10),
    }


def examples(net, tasks, count):
    """Inputs and targets of noise for one set of a task."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((tasks, count, *net.input_shape)).astype(np.float32)
    (outputs,) = net.output_shape(net.input_shape)
    if isinstance(net.loss_function, CrossEntropy):
        return x, rng.integers(0, outputs, (tasks, count))
    return x, rng.standard_normal((tasks, count, outputs)).astype(np.float32)


def record(name, net, x, y, kernels):
    """The distinct calls of one gradient and one Hessian-vector product, kernel by kernel, every task with weights of its own; then those
    of the kernels that only a meta-gradient calls, each by the first of METHODS that does."""
    calls, known = {}, set()

    def noting(kernel, function):
        def noted(*arguments):
            key = kernel, shapes(arguments)
            if key not in calls and kernel not in known:
                calls[key] = Call(
                    name,
                    kernel,
                    tuple(a.copy(order="K") if isinstance(a, np.ndarray) else a for a in arguments),
                )
            function(*arguments)

        return noted

    net = net.with_kernels(
        KernelSet(
            "noted",
            {kernel: noting(kernel, f) for kernel, f in kernels.functions.items()},
            kernels.xp,
            kernels.empty,
        )
    )
    w = weights(net, len(x))
    net.hvp(net.primal(w, x, y), np.ones_like(w))
    for method in METHODS:
        known |= {kernel for kernel, _ in calls}
        method.meta_gradient(net, w[0], Batch(x, y, x, y))
    return list(calls.values())


def weights(net, tasks):
    """Parameters (T, P) of every task's own, none of them 0 or 1 by construction."""
    return (
        net.init(0) + 0.1 * np.random.default_rng(1).standard_normal((tasks, net.num_params))
    ).astype(np.float32)
