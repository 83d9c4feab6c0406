"""Reptile as one kernel: a thread takes a task from theta to theta - phi_K.

The inner loop is that of inner_loop.py, of order 1, with more choices: mini-batches, a
proximal term, and a moment v of Adam that starts from numbers given. The recursion with
one call per pass over all tasks is the reference (refmaml/methods/reptile.py).
"""

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.unowned_views import part, row, unowned
from refmaml.kernels.whole_net.cpu import MATRIX, RANGE, RESULTS, TASKS
from refmaml.kernels.whole_net.derivatives import Examples, copy_outputs, primal
from refmaml.kernels.whole_net.filter_order import (
    from_product_order,
    to_product_order,
    transpose_filters,
)
from refmaml.kernels.whole_net.proximal import inner_step
from refmaml.kernels.whole_net.rule_numbers import V
from refmaml.kernels.whole_net.update_rules import row_of
from refmaml.kernels.whole_net.vectors import copy, difference, require_finite

# Rows of `vectors`, a thread's parameter vectors; those of the step sizes and of the
# update rule follow.
THETA, MASK, MOMENT, PHI, WT, GRADIENT, SCRATCH, RATES = range(8)


# fmt: off
@external(f"{RANGE}, int64, int64, int64, F, int64, {MATRIX}, int64, {MATRIX}, {TASKS}, {TASKS}, "
          f"F[::1], F[::1], F[::1], {MATRIX}, {RESULTS}, {MATRIX}, "
          f"F[::1], int16[::1], F[::1], int16[::1], {MATRIX}", from_python=True)
def displacement(lo, hi, steps, sets, carried, anchor, kind, rule_numbers, loss_kind, reals,
                 table, lists, N, scale, x, labels, targets,
                 qtable, qlists, Nq, qscale, xq, qlabels, qtargets,
                 theta, mask, moment, rates, z, loss, finite, grad, moments,
                 work, winners, qwork, qwinners, vectors):
    """Query outputs and losses, and theta - phi_K, of tasks lo .. hi.

    sets             mini-batches of a task, which are rows t sets + k of x
    carried          1: Adam's v starts from `moment` (P,), and moments (T, P) are that
                     less v_K
    anchor           lambda of the proximal term
    kind, rule_numbers    the update rule (update_rules.py)
    theta, mask (P,); rates (1 or steps, P)
    finite           whether losses and gradients were finite
    """
    table, qtable = unowned(table), unowned(qtable)
    lists, qlists, reals = unowned(lists), unowned(qlists), unowned(reals)
    support = Examples(table, table, reals, lists, N, loss_kind, scale, x, labels, targets)
    query = Examples(qtable, qtable, reals, qlists, Nq, loss_kind, qscale, xq, qlabels, qtargets)
    start, masks, first = row(vectors, THETA), row(vectors, MASK), row(vectors, MOMENT)
    for ordered, a in ((start, theta), (masks, mask), (first, moment)):
        to_product_order(table, lists, ordered, a)
    A = part(vectors, RATES, RATES + len(rates))
    memory = part(vectors, RATES + len(rates), len(vectors))
    for k in range(len(rates)):
        to_product_order(table, lists, row(A, k), row(rates, k))
    phi, wt, g = row(vectors, PHI), row(vectors, WT), row(vectors, GRADIENT)
    for t in range(lo, hi):
        task_loss, flag = part(loss, t, t + 1), part(finite, t, t + 1)
        flag[0] = True
        copy(phi, start)
        if carried == 1:
            memory[:] = anchor - anchor
            copy(row(memory, row_of(V, 0, len(memory))), first)
        for k in range(steps):
            transpose_filters(table, lists, wt, phi)
            primal(support, t * sets + k % sets, task_loss, phi, wt, g, work, winners)
            require_finite(flag, task_loss, g)
            inner_step(k, carried, phi, row(A, k % len(A)), g, start, masks, anchor, kind,
                       rule_numbers, memory, row(vectors, SCRATCH))
        transpose_filters(qtable, qlists, wt, phi)
        primal(query, t, task_loss, phi, wt, g, qwork, qwinners)
        require_finite(flag, task_loss, g)
        copy_outputs(qtable, row(z, t), qwork, Nq)
        difference(g, start, phi)
        from_product_order(table, lists, row(grad, t), g)
        if carried == 1:
            difference(g, first, row(memory, row_of(V, 0, len(memory))))
            from_product_order(table, lists, row(moments, t), g)
# fmt: on
