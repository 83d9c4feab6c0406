"""The kernel calls of nets, recorded with copies of their arguments."""

from typing import NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.execution import Sequential
from refmaml.layers import (
    AvgPool2d,
    BatchNorm2d,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    GroupNorm,
    LeakyReLU,
    Linear,
    Softplus,
    Tanh,
)
from refmaml.methods import table
from refmaml.models import conv4, mlp


class Call(NamedTuple):
    """A kernel with the arguments of one call; net: the net that called it."""

    net: str
    kernel: str
    arguments: tuple


def shapes(arguments):
    """The shapes of the arrays, and all other arguments as they are."""
    return tuple(a.shape if isinstance(a, np.ndarray) else getattr(a, "name", a) for a in arguments)


def nets():
    """{name: (net, tasks, examples)}: the bench's nets; one with all other layers."""
    every = Sequential(
        [
            Context(2),
            Conv2d(3, 32, 3, padding=1),
            BatchNorm2d(32),
            FiLM(32, 4),
            LeakyReLU(0.1),
            AvgPool2d(2),
            Conv2d(32, 32, 3),
            GroupNorm(8, 32),
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


def methods():
    """The methods of the table that call kernels which no gradient calls."""
    entries = (entry for entry in table.TABLE if entry.benched_with is not None)
    return [entry.cls(**entry.benched_with) for entry in entries]


def examples(net, tasks, count):
    """Inputs and targets of noise: one set of each of `tasks` tasks."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((tasks, count, *net.input_shape)).astype(np.float32)
    (outputs,) = net.output_shape(net.input_shape)
    if isinstance(net.loss_function, CrossEntropy):
        return x, rng.integers(0, outputs, (tasks, count))
    return x, rng.standard_normal((tasks, count, outputs)).astype(np.float32)


def record_calls(name, net, x, y, kernels):
    """[Call]: the calls with distinct shapes, each kernel layer by layer.

    First those of one gradient and one Hessian-vector product, with different weights
    in each task. Then those of the kernels that only a meta-gradient calls, each as the
    first of `methods()` that uses it calls it.
    """
    calls, known = {}, set()

    def recording(kernel, function):
        def recorded(*arguments):
            key = kernel, shapes(arguments)
            if key not in calls and kernel not in known:
                copies = (a.copy(order="K") if isinstance(a, np.ndarray) else a for a in arguments)
                calls[key] = Call(name, kernel, tuple(copies))
            function(*arguments)

        return recorded

    functions = {kernel: recording(kernel, f) for kernel, f in kernels.functions.items()}
    net = net.with_kernels(type(kernels)("recording", functions, kernels.xp, kernels.empty))
    w = weights(net, len(x))
    net.hvp(net.primal(w, x, y), np.ones_like(w))
    for method in methods():
        known |= {kernel for kernel, _ in calls}
        method.meta_gradient(net, w[0], Batch(x, y, x, y))
    return list(calls.values())


def weights(net, tasks):
    """Parameters (T, P), different in each task, none of them initially 0 or 1."""
    noise = np.random.default_rng(1).standard_normal((tasks, net.num_params))
    return (net.init(0) + 0.1 * noise).astype(np.float32)
