"""Rungs 4 to 7 for methods: meta-gradients against each of their oracles."""

from dataclasses import fields

import numpy as np

from refmaml.methods import table
from refmaml.methods.first_order_maml import FirstOrderMAML
from refmaml.methods.meta_sgd import MetaSGD
from refmaml.oracles import complex_step, dense, finite_differences, meta_objectives
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.update_rules import UpdateRule


def method_terms(method, net, batch):
    """How many numbers a meta-gradient sums from end to end; see tolerance.py.

    A forward, a backward and a product pass in every inner step and on the query set.
    """
    examples = batch.x_support.shape[1] + batch.x_query.shape[1]
    return 3 * (getattr(method, "inner_steps", 0) + 1) * net_terms(net, examples)


def describe(method):
    """ "MAML, K = 5": the class, and the settings that tell it from other cases."""
    parts = [type(method).__name__]
    if hasattr(method, "inner_steps") and not hasattr(method, "solver"):
        parts.append(f"K = {method.inner_steps}")
    for name in ("optimizer", "solver", "curvature"):
        parts += [f"{name} = {getattr(method, name)}"] if hasattr(method, name) else []
    if getattr(method, "moment", "fresh") == "carried":
        parts.append("carried moment")
    if not getattr(method, "rule", UpdateRule()).plain:
        parts.append(rule_text(method.rule))
    if getattr(method, "anchor", 0):
        parts.append(f"anchor = {method.anchor}")
    if isinstance(getattr(method, "inner_lr", None), tuple):
        parts.append("step sizes that differ")
    if getattr(method, "inner_batch", None):
        parts.append(f"mini-batches of {method.inner_batch}")
    if getattr(method, "loss_weights", None):
        parts.append("weighted losses")
    if getattr(method, "intercept", False):
        parts.append("intercept")
    if getattr(method, "differentiate", "") == "iterations":
        parts.append(f"through {method.newton_steps} Newton steps")
    if getattr(method, "frozen", ()):
        parts.append(f"frozen {', '.join(method.frozen)}")
    return ", ".join(parts)


def rule_text(rule):
    """ "Clip(SGD(momentum=0.9), norm=0.2)": a rule with its non-default fields."""
    texts = []
    for f in fields(rule):
        value = getattr(rule, f.name)
        if isinstance(value, UpdateRule):
            texts.append(rule_text(value))
        elif value != f.default:
            texts.append(f"{f.name}={value}")
    return f"{type(rule).__name__}({', '.join(texts)})"


def truth_by_steps(method, net, meta, batch):
    """dM/dmeta (M,), mean over tasks: the complex step through the whole inner loop."""
    M = meta_objectives.meta_objective
    tasks = [batch[t : t + 1] for t in range(len(batch))]
    truth = np.mean(
        [complex_step.gradient(lambda W, t=task: M(net, method, t, W), meta) for task in tasks],
        axis=0,
    )
    if isinstance(method, MetaSGD):  # rates that start at 0 are not learned
        truth[net.num_params :] *= meta_objectives.adapt_mask(net, method)
    return truth


def meta_gradient_check(method, net, meta, batch, truth=None, margin=np.inf, candidate=None):
    """Rung 4: a meta-gradient against the complex step through the whole inner loop.

    truth      the result of `truth_by_steps`; None: it is computed
    candidate  the function (net, meta, batch) -> gradient to check; None: the
               method's own meta_gradient
    """
    truth = truth_by_steps(method, net, meta, batch) if truth is None else truth
    value = (
        candidate(net, meta, batch) if candidate else method.meta_gradient(net, meta, batch).grad
    )
    return Check(
        "4 meta-gradient",
        describe(method),
        "dM/dmeta",
        "complex step",
        relative_error(value, truth),
        tolerance(float, method_terms(method, net, batch)),
        margin,
    )


def displacement_check(method, net, theta, batch):
    """Reptile against its definition, one task and one step at a time.

    With a carried moment, meta first moves on a part of the tasks, so that the moment
    is not 0. Any other method is checked against meta - adapt(meta), task by task.
    """
    meta = method.init(net, theta)
    for task in (batch[:1], batch[1:]) if getattr(method, "moment", "") == "carried" else ():
        meta = meta - 0.5 * method.meta_gradient(net, meta, task).grad
    if isinstance(method, table.Reptile):
        oracle, truth = "stepped by hand", meta_objectives.reptile(net, method, meta, batch)
    else:
        oracle, truth = "adapt", displacement_by_adaptation(method, net, meta, batch)
    return Check(
        "4 meta-gradient",
        describe(method),
        "theta - phi_K",
        oracle,
        relative_error(method.meta_gradient(net, meta, batch).grad, truth),
        tolerance(float, method_terms(method, net, batch)),
    )


def displacement_by_adaptation(method, net, meta, batch):
    """meta - adapt(meta), mean over tasks, each task adapted alone."""
    tasks = (batch[t : t + 1] for t in range(len(batch)))
    phi = [method.adapt(net, meta, task.x_support, task.y_support)[0] for task in tasks]
    return meta - np.mean(phi, axis=0)


def imaml_dense_check(method, net, theta, batch):
    """iMAML against a dense Hessian and LAPACK, at the inner solution that it found."""
    mask, truth, condition = meta_objectives.adapt_mask(net, method), np.zeros_like(theta), 1.0
    for t in range(len(batch)):
        task = batch[t : t + 1]
        phi = method.adapt(net, theta, task.x_support, task.y_support)[0]
        H = dense.hessian(net, phi, task.x_support, task.y_support)
        q = net.gradient(phi[None], task.x_query, task.y_query)[0]
        truth += dense.imaml_gradient(H, q, method.regularization, mask) / len(batch)
        condition = max(condition, np.linalg.cond(np.eye(len(theta)) + H / method.regularization))
    value = method.meta_gradient(net, theta, batch).grad
    # CG stops at a relative residual of cg_tol. The error of its solution is at most
    # that times A's condition number.
    limit = tolerance(float, method_terms(method, net, batch)) + method.cg_tol * condition
    return Check(
        "5 algebra", describe(method), "u", "dense H, LAPACK", relative_error(value, truth), limit
    )


def released_dense_check(method, net, theta, batch):
    """ReleasedIMAML against plain loops, a dense Hessian and LAPACK.

    (s I + H/d) u = q is (I + H/(s d)) s u = q, with s = 1 + shift and d = lambda +
    damping.
    """
    s, d = 1 + method.shift, method.regularization + method.damping
    truth, condition, everything = np.zeros_like(theta), 1.0, np.ones_like(theta)
    for t in range(len(batch)):
        x, y = batch.x_support[t : t + 1], batch.y_support[t : t + 1]
        phi = theta
        for _ in range(method.inner_steps):
            phi = phi - method.inner_lr * net.gradient(phi[None], x, y)[0]
        pull = method.inner_lr * method.regularization
        phi = (1 - pull) * phi + pull * theta
        H = dense.hessian(net, phi, x, y)
        q = net.gradient(phi[None], batch.x_query[t : t + 1], batch.y_query[t : t + 1])[0]
        truth += dense.imaml_gradient(H, q, s * d, everything) / s / len(batch)
        condition = max(condition, np.linalg.cond(np.eye(len(theta)) + H / (s * d)))
    value = method.meta_gradient(net, theta, batch).grad
    limit = tolerance(float, method_terms(method, net, batch)) + method.cg_tol * condition
    return Check(
        "5 algebra", describe(method), "u", "dense H, LAPACK", relative_error(value, truth), limit
    )


def finite_difference_check(method, net, theta, batch):
    """Rung 6: one directional derivative of M from values of M alone."""
    v = np.random.default_rng(0).standard_normal(len(theta))
    v /= np.linalg.norm(v)

    def M(meta):
        phi = method.adapt(net, meta, batch.x_support, batch.y_support)
        return net.loss(phi, batch.x_query, batch.y_query).mean()

    error = relative_error(
        method.meta_gradient(net, theta, batch).grad @ v,
        finite_differences.directional(M, theta, v),
    )
    # The step divides the rounding of M, not of one number: eps grows to eps
    # sqrt(terms).
    growth = np.sqrt(method_terms(method, net, batch))
    return Check(
        "6 other",
        describe(method),
        "<dM/dmeta, v>",
        "finite differences",
        error,
        finite_differences.ERROR * growth,
    )


def autodiff_check(library, meta_gradient, method, net, theta, batch):
    """Rung 6: MAML or first-order MAML against an autodiff library in float64."""
    truth = meta_gradient(
        net,
        theta,
        batch,
        method.inner_lr,
        method.inner_steps,
        method.adapts,
        method.frozen,
        isinstance(method, FirstOrderMAML),
    )
    return Check(
        "6 other",
        describe(method),
        f"{net.num_params} parameters",
        library,
        relative_error(method.meta_gradient(net, theta, batch).grad, truth),
        tolerance(float, method_terms(method, net, batch)),
    )


def precision_check(method, net, theta, batch):
    """The same meta-gradient in float32 against float64."""
    exact = method.meta_gradient(net, theta, batch).grad
    single = method.meta_gradient(net, theta.astype(np.float32), batch).grad
    assert single.dtype == np.float32
    return Check(
        "7 kernels",
        describe(method),
        "dM/dmeta in float32",
        "float64",
        relative_error(single, exact),
        tolerance(np.float32, method_terms(method, net, batch)),
    )
