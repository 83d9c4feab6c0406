"""iMAML and Reptile as one kernel each, called from Python: memory, threads."""

from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.compiled import check_precision
from refmaml.kernels.numba_runtime.preparation import prepare
from refmaml.kernels.whole_net import displacement, implicit
from refmaml.kernels.whole_net.memory_plan import whole_lines
from refmaml.kernels.whole_net.needs import needed_displacement, needed_implicit
from refmaml.kernels.whole_net.rule_numbers import num_rows
from refmaml.kernels.whole_net.whole_net import dense, divided, placeholders


class ImplicitOutcome(NamedTuple):
    """iMAML's results for all tasks: as Outcome (whole_net.py), and how CG ended.

    status (T,), residuals (T, 3): solver_numbers.py.
    """

    z: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    grad: np.ndarray
    status: np.ndarray
    residuals: np.ndarray


def implicit_gradients(net, theta, mask, support, query, settings, rule):
    """iMAML's gradients of all tasks on a WholeNet: an ImplicitOutcome.

    theta, mask (P,); support, query: (x, y, scale); rule: the update rule.
    settings: (solver, inner steps, CG iterations, numbers), see solver_numbers.py.
    """
    solver, steps, cg_steps, numbers = settings
    T, dtype = len(support[0]), np.result_type(theta, support[0])
    support = net.task_set(*support, dtype, lean=False)
    query = net.task_set(*query, dtype, lean=True)
    theta, mask = dense(theta, dtype), dense(mask, dtype)
    status, residuals = np.zeros(T, np.int64), np.zeros((T, 3), dtype)
    out = ImplicitOutcome(*net.outcome(T, query, len(theta), dtype), status, residuals)
    lean, rule_numbers = net.program(support.N, True), rule.numbers.astype(dtype)
    rows = implicit.RULE + num_rows(rule.kind, steps, 1)
    compute = compiled(net, dtype, implicit.implicit, needed_implicit, rule.kind)

    def run(lo, hi):
        vectors = parameter_vectors(net, rows, len(theta), dtype)
        work, rwork, qwork = divided(
            net.empty, dtype, (support.program.work,), (lean.work,), (query.program.work,)
        )
        winners, qwinners = winners_of(net, support, query)
        compute(
            lo, hi, solver, steps, cg_steps, bool(mask.all()), numbers.astype(dtype), rule.kind,
            rule_numbers, net.loss, net.reals(lean, dtype), lean.table,
            *support.arguments, *query.arguments, theta, mask, *out,
            work, winners, rwork, qwork, qwinners, vectors,
        )  # fmt: skip

    macs = (3 * steps + 6 * cg_steps) * support.program.macs + query.program.macs
    net.on_tasks(T, macs, run)
    return out


class DisplacementOutcome(NamedTuple):
    """Reptile's results for all tasks: as Outcome (whole_net.py); moments (T, P): the
    part of grad that belongs to Adam's v."""

    z: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    grad: np.ndarray
    moments: np.ndarray


def displacements(net, theta, mask, rates, support, query, anchor, rule, moment=None):
    """theta - phi_K of all tasks on a WholeNet: a DisplacementOutcome.

    theta, mask (P,); rates: A_k (P,) of every step; query: (x, y, scale).
    support    the same; with mini-batches x (T, sets, N, ...), y (T, sets, N, ...), of
               which step k sees k % sets
    anchor     strength of the proximal term; rule: the update rule
    moment     v (P,) from which Adam starts; None: 0
    """
    x, y, scale = support
    (T, sets), dtype, carried = x.shape[:2], np.result_type(theta, x), moment is not None
    support = net.task_set(
        *(a.reshape(T * sets, *a.shape[2:]) for a in (x, y)), scale, dtype, lean=True
    )
    query = net.task_set(*query, dtype, lean=True)
    steps, same = len(rates), all(A is rates[0] for A in rates)
    rates = dense(rates[0][None] if same else np.stack(rates), dtype)
    theta, mask, moment = (dense(a, dtype) for a in (theta, mask, moment if carried else theta))
    moments = net.empty((T, len(theta)), dtype) if carried else placeholders(dtype)[3]
    out = DisplacementOutcome(*net.outcome(T, query, len(theta), dtype), moments)
    reals, rule_numbers = net.reals(query.program, dtype), rule.numbers.astype(dtype)
    rows = displacement.RATES + len(rates) + num_rows(rule.kind, steps, 1)
    compute = compiled(net, dtype, displacement.displacement, needed_displacement, rule.kind)

    def run(lo, hi):
        vectors = parameter_vectors(net, rows, len(theta), dtype)
        work, qwork = divided(net.empty, dtype, (support.program.work,), (query.program.work,))
        winners, qwinners = winners_of(net, support, query)
        compute(
            lo, hi, steps, sets, int(carried), dtype.type(anchor), rule.kind, rule_numbers,
            net.loss, reals, *support.arguments, *query.arguments, theta, mask, moment, rates,
            *out, work, winners, qwork, qwinners, vectors,
        )  # fmt: skip

    net.on_tasks(T, 3 * steps * support.program.macs + query.program.macs, run)
    return out


def compiled(net, dtype, function, needs, kind):
    """A function from Python, with all that it calls, for the update rule `kind`."""
    use = function.external.name, kind
    if (dtype, use) not in net.compiled_for:
        check_precision(dtype)
        prepare(needs(net.operations, net.loss, kind), dtype.name)
        net.compiled_for[dtype, use] = function.external.python[dtype.name]
    return net.compiled_for[dtype, use]


def parameter_vectors(net, rows, P, dtype):
    """Memory (rows, P and padding), which is 0 and stays 0."""
    vectors = net.empty((rows, whole_lines(P)), dtype)
    vectors[:, P:] = 0
    return vectors


def winners_of(net, support, query):
    """Memory for the winners of max-pooling of a task's two sets."""
    return divided(net.empty, np.int16, (support.program.winners,), (query.program.winners,))
