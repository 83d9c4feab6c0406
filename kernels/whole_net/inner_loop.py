"""The inner loop and its adjoint recursion, one task after another:

    phi_{k+1} = phi_k - A_k * grad f(phi_k)                      k = 0 .. K-1
    lam_K     = grad g(phi_K)
    lam_k     = lam_{k+1} - H_f(phi_k) (A_k * lam_{k+1})         k = K-1 .. 0

The vectors of a task stay in the cache and in product order between the passes. The
recursion with one call per pass over all tasks is the reference
(refmaml/methods/inner_loop_adjoint.py). With an update rule, update_rules.py takes the
step and its pullback; `rule` below is its kind, its numbers and its memory.
"""

from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import part, row
from refmaml.kernels.whole_net.derivatives import Examples, copy_outputs, hessian_product, primal
from refmaml.kernels.whole_net.filter_order import (
    from_product_order,
    to_product_order,
    transpose_filters,
)
from refmaml.kernels.whole_net.rule_numbers import MOMENTUM, PLAIN, ZERO, G
from refmaml.kernels.whole_net.update_rules import pull_back, row_of, take_step
from refmaml.kernels.whole_net.vectors import add, divide, keep_if_finite, multiply, step, subtract

LAM, V, V_TRANSPOSED, GRADIENT, TOTAL, SCRATCH = range(6)  # the first rows of `vectors`
# The types of the fields of Examples; F is the precision.
EXAMPLES = ("int64[:,::1], int64[:,::1], F[:,::1], int64[::1], int64, int64, F, F[:,::1], "
            "int64[:,::1], F[:,:,::1]")  # fmt: skip


class Rule(NamedTuple):
    """An update rule: PLAIN, SGD or ADAM, its numbers of each step, and its vectors."""

    kind: int
    numbers: np.ndarray
    memory: np.ndarray


def num_vectors(steps, slots, rates, order):
    """How many parameter vectors a thread needs: the rows that `sections` divides."""
    return SCRATCH + rates + (steps + 1 if order > 1 else min(steps + 1, 3)) + slots


@inlined()
def sections(vectors, rates, slots, rule_rows):
    """(A_k, phi_k, phi_k with transposed filters, the rule's memory): the rows of
    `vectors` after SCRATCH.

    Order 2 has a row for every phi_k. Order 1 has three: phi_0, which tasks may share,
    and two that the others use in turn.
    """
    rows = len(vectors)
    end, phis = rows - rule_rows, SCRATCH + rates
    return (
        part(vectors, SCRATCH, phis),
        part(vectors, phis, end - slots),
        part(vectors, end - slots, end),
        part(vectors, end, rows),
    )


@inlined()
def phi_row(k, rows):
    """The row of phi_k among so many rows."""
    return k if k < rows else 2 - k % 2


# fmt: off
@inlined()
def descend(e, t, steps, new_start, A, phis, transposed, rule, loss, finite, gradient, work,
            winners):
    """phi_1 .. phi_K of task t from phi_0. Clears finite (1,) if a gradient was not.

    new_start: whether phi_0 differs from that of the task before.
    """
    slots = len(work)
    for k in range(steps):
        slot, phi = k % slots, row(phis, phi_row(k, len(phis)))
        if k > 0 or new_start or slots < steps:
            transpose_filters(e.table, e.lists, row(transposed, slot), phi)
        if rule.kind != PLAIN:
            gradient = row(rule.memory, row_of(G, k, len(rule.memory)))
        primal(e, t, loss, phi, row(transposed, slot), gradient, row(work, slot),
               row(winners, slot))
        keep_if_finite(finite, gradient)
        after, rates = row(phis, phi_row(k + 1, len(phis))), row(A, k % len(A))
        if rule.kind == PLAIN:
            step(after, phi, rates, gradient)
        else:
            take_step(rule.kind, k, after, phi, rates, row(rule.numbers, k), rule.memory)


@external(f"int64, int64, {EXAMPLES}, F[:,::1], F[:,::1], F[:,::1], int64, F[:,::1], F[:,::1], "
          "F[:,::1], F[:,::1], F[::1], int16[:,::1]", on_demand=True)
def adjoint(t, steps, table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets,
            A, phis, transposed, kind, numbers, memory, vectors, work, rwork, winners):
    """lam_0 of task t in place of lam_K.

    The pass of a step whose slot was overwritten is recomputed.
    """
    e = Examples(table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    slots, loss = len(work), np.empty(1, work.dtype)
    lam, v, vt = row(vectors, LAM), row(vectors, V), row(vectors, V_TRANSPOSED)
    gradient = row(vectors, GRADIENT)
    if kind != PLAIN:
        memory[:MOMENTUM] = numbers[0, ZERO]  # the adjoints of the state
    for k in range(steps - 1, -1, -1):
        slot, phi, rates = k % slots, row(phis, k), row(A, k % len(A))
        wt, task_work, won = row(transposed, slot), row(work, slot), row(winners, slot)
        if k < steps - slots:
            transpose_filters(table, lists, wt, phi)
            primal(e, t, loss, phi, wt, gradient, task_work, won)
        if kind == PLAIN:
            multiply(v, rates, lam)
        else:
            pull_back(kind, k, v, lam, phi, rates, row(numbers, k), memory)
        transpose_filters(table, lists, vt, v)
        hessian_product(e, t, phi, wt, v, vt, gradient, task_work, rwork, won)
        subtract(lam, gradient)


@external(f"int64, int64, int64, int64, int64, F[:,::1], int64, {EXAMPLES}, int64[:,::1], "
          "int64[::1], int64, F, F[:,::1], int64[:,::1], F[:,:,::1], F[:,::1], F[:,::1], "
          "F[:,:,::1], F[::1], boolean[::1], F[:,::1], F[:,::1], F[::1], int16[:,::1], F[::1], "
          "int16[::1], F[:,::1]", on_demand=True)
def unrolled(lo, hi, steps, order, kind, numbers, rule_rows,
             table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets,
             qtable, qlists, Nq, qscale, xq, qlabels, qtargets,
             w, rates, z, loss, finite, grad, work, rwork, winners, qwork, qwinners, vectors):
    """Query loss, outputs and lam_0 of tasks lo .. hi; order 1: lam_0 = lam_K.

    finite: whether phi_0, every gradient of the inner loop and lam_0 were finite.
    grad: a row for each task. If it has one row, it gets the mean over tasks lo .. hi:
    they are added to 0 one after another. `finite` of the last is for the sum, too.
    work, winners: a slot for each step, or fewer; then `adjoint` recomputes passes.
    """
    support = Examples(table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    query = Examples(qtable, rtable, reals, qlists, Nq, loss_kind, qscale, xq, qlabels, qtargets)
    lam, qt, gradient = row(vectors, LAM), row(vectors, V_TRANSPOSED), row(vectors, GRADIENT)
    A, phis, transposed, memory = sections(vectors, len(rates), len(work), rule_rows)
    rule = Rule(kind, numbers, memory)
    total, average = row(vectors, TOTAL), len(grad) == 1
    total[:] = 0
    for k in range(len(rates)):
        to_product_order(table, lists, row(A, k), row(rates, k))
    for t in range(lo, hi):
        new_start, task_loss = t == lo or len(w) > 1, part(loss, t, t + 1)
        finite[t], flag = True, part(finite, t, t + 1)
        if new_start:
            to_product_order(table, lists, row(phis, 0), row(w, t % len(w)))
            keep_if_finite(flag, row(phis, 0))
        descend(support, t, steps, new_start, A, phis, transposed, rule, task_loss, flag,
                gradient, work, winners)
        phi = row(phis, phi_row(steps, len(phis)))
        transpose_filters(qtable, qlists, qt, phi)
        primal(query, t, task_loss, phi, qt, lam, qwork, qwinners)
        copy_outputs(qtable, row(z, t), qwork, Nq)
        if order > 1:
            adjoint(t, steps, table, rtable, reals, lists, N, loss_kind, scale, x, labels,
                    targets, A, phis, transposed, kind, numbers, memory, vectors, work, rwork,
                    winners)
        keep_if_finite(flag, lam)
        if average:
            add(total, lam)
        else:
            from_product_order(table, lists, row(grad, t), lam)
    if average:
        keep_if_finite(part(finite, hi - 1, hi), total)
        divide(total, hi - lo)
        from_product_order(table, lists, row(grad, 0), total)
# fmt: on
