"""A whole net on a CPU, task by task: loss and gradient, Hessian products, inner loop.

Layers that are kernels of their own send every array to memory and back, and cost a
call each. Here a thread takes a task from the first operation to the last. What one
operation writes, the next finds in the second-level cache, and a small net needs one
call instead of calls that take longer than their arithmetic. The single kernels are the
reference.

Python calls one compiled function, `run`; `what` selects the computation. Each
computation is an external function, so that only those that are used are compiled.
"""

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import part, row, unowned
from refmaml.kernels.whole_net.derivatives import (
    Examples,
    copy_outputs,
    gauss_newton_product,
    hessian_product,
    primal,
)
from refmaml.kernels.whole_net.filter_order import (
    from_product_order,
    to_product_order,
    transpose_filters,
)
from refmaml.kernels.whole_net.inner_loop import EXAMPLES, unrolled
from refmaml.kernels.whole_net.vectors import keep_if_finite

PRIMAL, HESSIAN, GAUSS_NEWTON, UNROLLED = range(4)  # `what`
# Rows of `vectors`, a thread's parameter vectors (inner_loop.py has rows of its own).
W, W_TRANSPOSED, GRAD, V, V_TRANSPOSED, NUM_VECTORS = range(6)
# The types of the arguments; F is the precision.
LIST, MATRIX, STACK = "int64[::1]", "F[:,::1]", "F[:,:,::1]"
RANGE = "int64, int64"
RESULTS = f"{STACK}, F[::1], boolean[::1], {MATRIX}"  # z, loss, finite, grad
MEMORY = f"{MATRIX}, int16[:,::1]"  # work, winners
# table, lists, N, scale, x, labels, targets
TASKS = f"int64[:,::1], {LIST}, int64, F, {MATRIX}, int64[:,::1], {STACK}"


# fmt: off
@external(f"{RANGE}, {EXAMPLES}, {MATRIX}, {RESULTS}, {MEMORY}, {MATRIX}", on_demand=True)
def primal_tasks(lo, hi, table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets, w,
                 z, loss, finite, grad, work, winners, vectors):
    """Outputs, loss and gradient of tasks lo .. hi, and whether the gradient is finite.

    If `work` and `winners` have a row for each task, they keep what R-passes need.
    """
    e = Examples(table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    wt, g = row(vectors, W_TRANSPOSED), row(vectors, GRAD)
    for t in range(lo, hi):
        order_parameters(e, w, t, t == lo, row(vectors, W), wt)
        task_work = row(work, t % len(work))
        primal(e, t, part(loss, t, t + 1), row(vectors, W), wt, g, task_work,
               row(winners, t % len(winners)))
        copy_outputs(table, row(z, t), task_work, N)
        from_product_order(table, lists, row(grad, t), g)
        finite[t] = True
        keep_if_finite(part(finite, t, t + 1), row(grad, t))


@external(f"{RANGE}, {EXAMPLES}, {MATRIX}, {MATRIX}, {MATRIX}, {MATRIX}, F[::1], int16[:,::1], "
          f"{MATRIX}", on_demand=True)
def hessian_tasks(lo, hi, table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets,
                  w, v, grad, work, rwork, winners, vectors):
    """H v of tasks lo .. hi, from what `primal_tasks` left in work."""
    e = Examples(table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    for t in range(lo, hi):
        order_parameters(e, w, t, t == lo, row(vectors, W), row(vectors, W_TRANSPOSED))
        order_parameters(e, v, t, t == lo, row(vectors, V), row(vectors, V_TRANSPOSED))
        hessian_product(e, t, row(vectors, W), row(vectors, W_TRANSPOSED), row(vectors, V),
                        row(vectors, V_TRANSPOSED), row(vectors, GRAD), row(work, t), rwork,
                        row(winners, t))
        from_product_order(table, lists, row(grad, t), row(vectors, GRAD))


@external(f"{RANGE}, {EXAMPLES}, {MATRIX}, {MATRIX}, {MATRIX}, {MATRIX}, F[::1], int16[:,::1], "
          f"{MATRIX}", on_demand=True)
def gauss_newton_tasks(lo, hi, table, rtable, reals, lists, N, loss_kind, scale, x, labels,
                       targets, w, v, grad, work, rwork, winners, vectors):
    """G v of tasks lo .. hi, from what `primal_tasks` left in work."""
    e = Examples(table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    for t in range(lo, hi):
        order_parameters(e, w, t, t == lo, row(vectors, W), row(vectors, W_TRANSPOSED))
        order_parameters(e, v, t, t == lo, row(vectors, V), row(vectors, V_TRANSPOSED))
        gauss_newton_product(e, t, row(vectors, W), row(vectors, W_TRANSPOSED), row(vectors, V),
                             row(vectors, GRAD), row(work, t), rwork, row(winners, t))
        from_product_order(table, lists, row(grad, t), row(vectors, GRAD))


@inlined()
def order_parameters(e, w, t, first, ordered, transposed):
    """The parameters of task t in product order; only once if all tasks share them."""
    if first or len(w) > 1:
        to_product_order(e.table, e.lists, ordered, row(w, t % len(w)))
        transpose_filters(e.table, e.lists, transposed, ordered)


@external(f"{RANGE}, int64, int64, int64, int64, {MATRIX}, int64, int64, {MATRIX}, int64[:,::1], "
          f"{TASKS}, {TASKS}, {MATRIX}, {MATRIX}, {RESULTS}, {MEMORY}, F[::1], F[::1], "
          f"int16[::1], {MATRIX}", from_python=True)
def run(lo, hi, what, steps, order, kind, numbers, rule_rows, loss_kind, reals, rtable,
        table, lists, N, scale, x, labels, targets,
        qtable, qlists, Nq, qscale, xq, qlabels, qtargets,
        w, v, z, loss, finite, grad, work, winners, rwork, qwork, qwinners, vectors):
    """`what` of tasks lo .. hi.

    table .. targets   the examples, of the support set for UNROLLED (derivatives.py)
    qtable .. qtargets the query set, for UNROLLED
    v                  directions; for UNROLLED the step sizes A_k
    kind, numbers, rule_rows  the update rule, for UNROLLED (update_rules.py)
    z, loss, finite, grad                       results of all tasks
    work, winners, rwork, qwork, qwinners       memory for the passes
    vectors                                     memory for parameter vectors
    """
    # What the passes slice and index: no counting of references (unowned_views.py).
    table, rtable, qtable = unowned(table), unowned(rtable), unowned(qtable)
    lists, qlists, reals = unowned(lists), unowned(qlists), unowned(reals)
    if what == PRIMAL:
        primal_tasks(lo, hi, table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets,
                     w, z, loss, finite, grad, work, winners, vectors)
    elif what == HESSIAN:
        hessian_tasks(lo, hi, table, rtable, reals, lists, N, loss_kind, scale, x, labels,
                      targets, w, v, grad, work, rwork, winners, vectors)
    elif what == GAUSS_NEWTON:
        gauss_newton_tasks(lo, hi, table, rtable, reals, lists, N, loss_kind, scale, x, labels,
                           targets, w, v, grad, work, rwork, winners, vectors)
    else:
        unrolled(lo, hi, steps, order, kind, numbers, rule_rows,
                 table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets,
                 qtable, qlists, Nq, qscale, xq, qlabels, qtargets,
                 w, v, z, loss, finite, grad, work, rwork, winners, qwork, qwinners, vectors)
# fmt: on
