"""A small tanh regression, and the changes to a case that leave one stage to see."""

from dataclasses import replace

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor.builtin_cases import normal_inputs
from refmaml.doctor.cases import Case
from refmaml.doctor.method_settings import fitting, initial_meta
from refmaml.doctor.method_table import IMPLICIT, NO_LOOP, SOLVED, entry
from refmaml.execution import Sequential
from refmaml.layers import MSE, Context, Linear, Tanh

EXAMPLES = 7  # in the support set


def regression(method):
    """A tanh regression of one task, with enough query points that its Gauss-Newton
    matrix can be inverted."""
    rng = np.random.default_rng(7)
    context = [Context(2)] if entry(method).context else []
    layers = [*context, Linear(3 + 2 * len(context), 5), Tanh(), Linear(5, 2)]
    net = Sequential(layers, MSE(factor=0.5), (3,))
    theta = net.init(rng, np.float64) + 0.1 * rng.standard_normal(net.num_params)
    batch = Batch(*normal_inputs(net, 1, EXAMPLES, rng), *normal_inputs(net, 1, 61, rng))
    method = fitting(adapting_everything(method), net)
    size = getattr(method, "inner_batch", None)
    if not callable(size) and (size or 0) > EXAMPLES:
        method = replace(method, inner_batch=None)
    method = entry(method).settings(method, net, theta, batch)
    return Case("regression", net, method, initial_meta(method, net, theta, rng), batch)


def adapting_everything(method):
    """The method without name patterns, which are those of another net."""
    if hasattr(method, "adapts") and not set(method.adapts) & {"head", "body", "context"}:
        return replace(method, adapts=("*",), frozen=())
    return method


def with_steps(case, steps):
    """The case with another number of inner steps; None for a method without steps."""
    method = case.method
    if entry(method).kind in (NO_LOOP, IMPLICIT, SOLVED):
        return None
    changes = {"inner_steps": steps}
    if isinstance(method.inner_lr, tuple):
        changes["inner_lr"] = method.inner_lr[:steps]
    if hasattr(method, "loss_weights"):
        changes["loss_weights"] = None
    method = replace(method, **changes)
    rng = np.random.default_rng(11)
    return case.with_(method=method, meta=initial_meta(method, case.net, case.theta, rng))


def with_single_step(case):
    """The case with one inner step; unchanged for a method without steps."""
    return with_steps(case, 1) or case


def with_step_size(case, size):
    """The case with another inner step size; for iMAML with regularization 1 / size,
    which moves as little."""
    kind = entry(case.method).kind
    if kind in (NO_LOOP, SOLVED):
        return case
    if kind == IMPLICIT:
        return case.with_(method=replace(case.method, regularization=1 / size, inner_lr=size))
    factors = case.step_factors
    sizes = size if factors is None else tuple(size * c for c in factors[: case.method.inner_steps])
    method = replace(case.method, inner_lr=sizes)
    meta = case.meta.copy()
    meta[case.net.num_params :] = method.init(case.net, case.theta)[case.net.num_params :]
    return case.with_(method=method, meta=meta)


def with_query_solved(case):
    """The case with query targets for which the query loss is 0 at theta."""
    b = case.batch
    return case.with_(batch=Batch(b.x_support, b.y_support, b.x_query, outputs(case, b.x_query)))


def with_support_solved(case):
    """The case with support targets for which the support loss is 0 at theta."""
    b = case.batch
    return case.with_(batch=Batch(b.x_support, outputs(case, b.x_support), b.x_query, b.y_query))


def outputs(case, x):
    """The net's outputs at theta, where inner loops start."""
    start = case.theta
    if entry(case.method).context:
        start = start * (1 - case.method.adapting(case.net, start))
    return case.net.forward(case.net.parameters.views(start[None]), x, keep=False)[0]
