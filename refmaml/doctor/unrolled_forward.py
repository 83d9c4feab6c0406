"""The inner loop forward, with the choices of a `Loop` of unrolled_variants.py."""

from dataclasses import dataclass

import numpy as np

from refmaml.doctor.joint_statistics import FirstExamples
from refmaml.doctor.method_table import NO_LOOP, entry
from refmaml.doctor.wrong_kernels import WRONG
from refmaml.update_rules import UpdateRule


@dataclass
class Run:
    """The forward pass: the net, phi_0 .. phi_K, each step's primal pass, the arguments
    of the rule (phi, g, state, factors), its directions, and the step sizes."""

    net: object
    phis: list
    primals: list
    arguments: list
    directions: list
    rates: list


def data(case, which):
    """(x, y) of the "support", the "query" or "both" sets.

    "support first" and "query first" are both sets in that order, of which the loss
    takes the first one.
    """
    b = case.batch
    if which.endswith(" first"):
        sets = b.sets if which == "support first" else b.sets[::-1]
        return tuple(np.concatenate(pair, axis=1) for pair in zip(*sets, strict=True))
    if which == "both":
        x = np.concatenate([b.x_support, b.x_query], axis=1)
        return x, np.concatenate([b.y_support, b.y_query], axis=1)
    return (b.x_support, b.y_support) if which == "support" else (b.x_query, b.y_query)


def start_and_rates(case, loop):
    """phi_0 (1, P) and A_0 .. A_{K-1} (P,), the loop's factors included."""
    if entry(case.method).kind == NO_LOOP:
        return case.meta[None], []
    phi, rates = case.method.start(case.net, case.meta)
    if loop.adapts is not None:
        rates = [alpha * case.net.mask(loop.adapts) for alpha in case.method.step_lengths]
    factor = np.ones(case.net.num_params)
    for pattern, value in loop.factors:
        factor[case.net.mask((pattern,))] *= value
    each = loop.rate if isinstance(loop.rate, tuple) else (loop.rate,)

    def at(values, k):  # the last value goes on where a loop has more steps
        return values[min(k, len(values) - 1)]

    return phi, [at(each, k) * factor * at(rates, k) for k in range(loop.steps)]


def rule_mask(case, loop):
    """1 where a parameter adapts, (P,), as the method's rule sees the gradient of these
    parameters only; 1 for a method without a rule."""
    if getattr(case.method, "rule", UpdateRule()).plain:
        return 1
    if loop.adapts is not None:
        return case.net.mask(loop.adapts).astype(float)
    return case.method.adapting(case.net, case.theta)


def mini_batches(case, loop, examples):
    """The support examples that each step uses, as indices."""
    if loop.places == "all" or getattr(case.method, "inner_batch", None) is None:
        return [slice(None)] * loop.steps
    batches = case.method.mini_batches(examples)
    return [batches[k % len(batches)] for k in range(loop.steps)]


def descend(case, loop):
    """The inner loop of all tasks."""
    net, (x, y) = network(case, loop), data(case, loop.support)
    phi, rates = start_and_rates(case, loop)
    places = mini_batches(case, loop, x.shape[1])
    return inner_loop(net, phi, rates, x, y, places, loop, rule_mask(case, loop))[0]


def descend_in_turn(case, loop):
    """[Run] of each task, where one begins with the parameters or with the rule's state
    with which the task before ended."""
    net, (x, y) = network(case, loop), data(case, loop.support)
    phi, rates = start_and_rates(case, loop)
    places, mask = mini_batches(case, loop, x.shape[1]), rule_mask(case, loop)
    runs, state = [], None
    for t in range(len(x)):
        one, first = slice(t, t + 1), t * loop.steps * loop.carry
        run, after = inner_loop(net, phi, rates, x[one], y[one], places, loop, mask, state, first)
        state = after if loop.carry else None
        phi = phi if loop.start == "theta" else run.phis[-1]
        runs.append(run)
    return runs


def network(case, loop):
    """The net with the kernels and the loss that the inner loop has."""
    net = case.net
    if loop.support == "support first":
        net = net.with_loss(FirstExamples(net.loss_function, case.batch.x_support.shape[1]))
    return net.with_kernels(WRONG[loop.kernels](net.kernels)) if loop.kernels else net


def inner_loop(net, phi, rates, x, y, places, loop, mask, state=None, first=0):
    """(Run, the rule's last state) from phi, after `first` steps of other tasks."""
    run = Run(net, [phi], [], [], [], rates)
    state = loop.rule.init(phi) if state is None else state
    for k, A in enumerate(rates):
        point = run.phis[0] if loop.base == "once" else run.phis[-1]
        primal = net.primal(point, x[:, places[k]], y[:, places[k]])
        pulled = loop.decay * point + loop.anchor * (point - run.phis[0])
        arguments = point, mask * (primal.grad + pulled), state, loop.rule.factors(first + k + 1)
        d, state = loop.rule.direction(net, *arguments)
        start = run.phis[0] if loop.base == "start" else run.phis[-1]
        run.phis.append(start - A * d)
        run.primals.append(primal)
        run.arguments.append(arguments)
        run.directions.append(d)
    if loop.hessian_at != "each":
        run.primals = moved_primals(net, run, x, y, places, loop.hessian_at)
    return run, state


def moved_primals(net, run, x, y, places, where):
    """The passes at other parameters than phi_0 .. phi_{K-1}: see Loop.hessian_at."""
    K = len(run.primals)
    points = {"start": run.phis[:1] * K, "end": run.phis[-1:] * K, "next": run.phis[1:]}[where]
    return [net.primal(phi, x[:, at], y[:, at]) for phi, at in zip(points, places, strict=True)]
