"""A whole net on a CPU, task by task: loss and gradient, Hessian products, inner loop.

Layers that are kernels of their own send every array to memory and back, and cost a
call each. Here a thread takes a task from the first operation to the last. What one
operation writes, the next finds in the second-level cache, and a small net needs one
call instead of calls that take longer than their arithmetic. The single kernels are the
reference.

One compiled function, `run`, does everything; `what` selects the computation. Several
functions would each compile what they share.
"""

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import unowned
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
from refmaml.kernels.whole_net.inner_loop import unrolled
from refmaml.kernels.whole_net.vectors import all_finite

PRIMAL, HESSIAN, GAUSS_NEWTON, UNROLLED = range(4)  # `what`
# Rows of `vectors`, a thread's parameter vectors (inner_loop.py has rows of its own).
W, W_TRANSPOSED, GRAD, V, V_TRANSPOSED, NUM_VECTORS = range(6)


# fmt: off
@inner()
def primal_tasks(lo, hi, e, w, z, loss, finite, grad, work, winners, vectors):
    """Outputs, loss and gradient of tasks lo .. hi, and whether the gradient is finite.

    If `work` and `winners` have a row for each task, they keep what R-passes need.
    """
    for t in range(lo, hi):
        order_parameters(e, w, t, t == lo, vectors[W], vectors[W_TRANSPOSED])
        task_work, task_winners = work[t % len(work)], winners[t % len(winners)]
        loss[t] = primal(e, t, vectors[W], vectors[W_TRANSPOSED], vectors[GRAD], task_work,
                         task_winners)
        copy_outputs(e.table, z[t], task_work, e.N)
        from_product_order(e.table, e.lists, grad[t], vectors[GRAD])
        finite[t] = all_finite(grad[t])


@inner()
def product_tasks(lo, hi, what, e, w, v, grad, work, rwork, winners, vectors):
    """H v or G v of tasks lo .. hi, from what `primal_tasks` left in work."""
    for t in range(lo, hi):
        order_parameters(e, w, t, t == lo, vectors[W], vectors[W_TRANSPOSED])
        order_parameters(e, v, t, t == lo, vectors[V], vectors[V_TRANSPOSED])
        if what == HESSIAN:
            hessian_product(e, t, vectors[W], vectors[W_TRANSPOSED], vectors[V],
                            vectors[V_TRANSPOSED], vectors[GRAD], work[t], rwork, winners[t])
        else:
            gauss_newton_product(e, t, vectors[W], vectors[W_TRANSPOSED], vectors[V],
                                 vectors[GRAD], work[t], rwork, winners[t])
        from_product_order(e.table, e.lists, grad[t], vectors[GRAD])


@inner()
def order_parameters(e, w, t, first, ordered, transposed):
    """The parameters of task t in product order; only once if all tasks share them."""
    if first or len(w) > 1:
        to_product_order(e.table, e.lists, ordered, w[t % len(w)])
        transpose_filters(e.table, e.lists, transposed, ordered)


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
    e = Examples(unowned(table), unowned(rtable), unowned(reals), unowned(lists), N, loss_kind,
                 scale, unowned(x), unowned(labels), unowned(targets))
    w, v, z, grad = unowned(w), unowned(v), unowned(z), unowned(grad)
    work, rwork = unowned(work), unowned(rwork)
    winners, vectors = unowned(winners), unowned(vectors)
    if what == PRIMAL:
        primal_tasks(lo, hi, e, w, z, loss, finite, grad, work, winners, vectors)
    elif what < UNROLLED:
        product_tasks(lo, hi, what, e, w, v, grad, work, rwork, winners, vectors)
    else:
        query = Examples(unowned(qtable), e.rtable, e.reals, unowned(qlists), Nq, loss_kind,
                         qscale, unowned(xq), unowned(qlabels), unowned(qtargets))
        unrolled(lo, hi, steps, order, kind, unowned(numbers), rule_rows, e, query, w, v, z,
                 loss, finite, grad, work, rwork, winners, unowned(qwork), unowned(qwinners),
                 vectors)


TABLE, LIST, ROW, MATRIX, STACK = (
    "int64[:,::1]", "int64[::1]", "F[::1]", "F[:,::1]", "F[:,:,::1]")
# table, lists, N, scale, x, labels, targets
EXAMPLES = (TABLE, LIST, "int64", "F", MATRIX, "int64[:,::1]", STACK)
SIGNATURE = (
    *["int64"] * 6, MATRIX, "int64", "int64", MATRIX, TABLE, *EXAMPLES, *EXAMPLES,
    MATRIX, MATRIX, STACK, ROW, "boolean[::1]", MATRIX,
    MATRIX, "int16[:,::1]", ROW, ROW, "int16[::1]", MATRIX,
)
# fmt: on
