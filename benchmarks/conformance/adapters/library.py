"""What the adapters share: their description, tasks, step sizes, means over tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from refmaml.doctor.frameworks import arguments_of, framework
from refmaml.doctor.layouts import Layout
from refmaml.methods.inner_loop_adjoint import step_sizes


def every_rule(rule):
    """The reason of a library that lacks no update rule."""
    return ""


@dataclass(frozen=True)
class Library:
    """A library and its meta-gradients.

    name           in the table
    module         to import
    distributions  whose versions are recorded
    framework      of its arrays
    methods        {method of the table: function(problem, params, batch)}
    absent         {method of the table: why the library has none}
    lacks          update rule -> why the library has none of that kind; "" where it has
    """

    name: str
    module: str
    distributions: tuple
    framework: str
    methods: dict
    absent: dict = field(default_factory=dict)
    lacks: Callable = every_rule


def adapted(problem):
    """Names of the parameters that take inner steps, in order."""
    method, net = problem.method, problem.net
    moves = net.named(
        step_sizes(
            net, 1, getattr(method, "adapts", ("*",)), getattr(method, "frozen", ()), np.float64
        )
    )
    return [name for name, a in moves.items() if a.any()]


def weights(problem, params):
    """The net's own parameters among the meta-parameters."""
    return {name: params[name] for name in problem.net.shapes}


def rate(name):
    """The name of the learned step sizes of a parameter."""
    return f"inner_lr.{name}"


def rates(problem, params):
    """{name: its step sizes}, fixed or learned, of parameters that take inner steps."""
    return {name: params.get(rate(name), problem.method.inner_lr) for name in adapted(problem)}


def tasks(batch):
    """(x_support, y_support, x_query, y_query) of each task."""
    return list(zip(batch.x_support, batch.y_support, batch.x_query, batch.y_query, strict=True))


def mean(gradients):
    """The mean over tasks of {name: gradient}."""
    return {name: sum(g[name] for g in gradients) / len(gradients) for name in gradients[0]}


def answer(function, case, arrays):
    """(M,) what an adapter's function returns on a case of the doctor.

    arrays  "torch", "jax": the framework of the function
    """
    lib = framework(arrays)
    with lib.scope():
        problem, params, batch, _ = arguments_of(case, lib, Layout())
        found = function(problem, params, batch)
        return case.flat({name: lib.to_numpy(g) for name, g in found.items()})
