"""A whole chain on a CPU, task by task: loss and gradient, products with the Hessian, and the inner loop with the way back through it.

The layers of a net, each a kernel of its own over all tasks, send every array to memory and back, and cost a call each. Here a thread takes
a task from the first operation to the last, so that what one writes the next finds in the second-level cache; and a net so small
that the calls took longer than the arithmetic needs one. The chain of single kernels remains the reference.

Everything is one compiled function, `run`, told by a number what to do: two would each compile all that they share.
"""

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import unowned
from refmaml.kernels.whole_net.derivatives import (
    gauss_newton_product,
    hessian_product,
    keep_outputs,
    primal,
)
from refmaml.kernels.whole_net.filter_order import from_products, to_products, turn
from refmaml.kernels.whole_net.inner_loop import unrolled
from refmaml.kernels.whole_net.vectors import all_finite

PRIMAL, HESSIAN, GAUSS_NEWTON, UNROLLED = range(4)
# Rows of `vectors`, a thread's own room for vectors of parameters (unrolled.py has its own).
W, TURNED, GRAD, V, V_TURNED, ROWS = range(6)


@inner()
def primal_tasks(
    lo,
    hi,
    table,
    reals,
    lists,
    N,
    kind,
    scale,
    x,
    labels,
    targets,
    w,
    z,
    loss,
    finite,
    grad,
    work,
    places,
    vectors,
):
    """Outputs, loss and gradient of tasks lo .. hi, and whether all of the gradient is finite; what R-passes need stays in `work` and
    `places` where those have a row for each task."""
    for t in range(lo, hi):
        put_in_order(table, lists, w, t, t == lo, vectors[W], vectors[TURNED])
        own = work[t % len(work)]
        loss[t] = primal(
            table,
            reals,
            lists,
            N,
            kind,
            scale,
            x[t],
            labels[t % len(labels)],
            targets[t % len(targets)],
            vectors[W],
            vectors[TURNED],
            vectors[GRAD],
            own,
            places[t % len(places)],
        )
        keep_outputs(table, z[t], own, N)
        from_products(table, lists, grad[t], vectors[GRAD])
        finite[t] = all_finite(grad[t])


@inner()
def product_tasks(
    lo,
    hi,
    what,
    table,
    rtable,
    reals,
    lists,
    N,
    kind,
    scale,
    x,
    labels,
    w,
    v,
    grad,
    work,
    rwork,
    places,
    vectors,
):
    """H v or G v of tasks lo .. hi, after `primal_tasks` left its values and adjoints in work."""
    for t in range(lo, hi):
        put_in_order(table, lists, w, t, t == lo, vectors[W], vectors[TURNED])
        put_in_order(table, lists, v, t, t == lo, vectors[V], vectors[V_TURNED])
        if what == HESSIAN:
            hessian_product(
                table,
                rtable,
                reals,
                lists,
                N,
                kind,
                scale,
                x[t],
                labels[t % len(labels)],
                vectors[W],
                vectors[TURNED],
                vectors[V],
                vectors[V_TURNED],
                vectors[GRAD],
                work[t],
                rwork,
                places[t],
            )
        else:
            gauss_newton_product(
                table,
                rtable,
                reals,
                lists,
                N,
                kind,
                scale,
                x[t],
                labels[t % len(labels)],
                vectors[W],
                vectors[TURNED],
                vectors[V],
                vectors[GRAD],
                work[t],
                rwork,
                places[t],
            )
        from_products(table, lists, grad[t], vectors[GRAD])


@inner()
def put_in_order(table, lists, w, t, first, ordered, turned):
    """The parameters of task t in the order of the products; those that all tasks share only once."""
    if first or len(w) > 1:
        to_products(table, lists, ordered, w[t % len(w)])
        turn(table, lists, turned, ordered)


def run(
    lo,
    hi,
    what,
    steps,
    order,
    kind,
    reals,
    rtable,
    table,
    lists,
    N,
    scale,
    x,
    labels,
    targets,
    qtable,
    qlists,
    Nq,
    qscale,
    xq,
    qlabels,
    qtargets,
    w,
    v,
    z,
    loss,
    finite,
    grad,
    work,
    places,
    rwork,
    qwork,
    qplaces,
    vectors,
):
    """`what` of tasks lo .. hi. table, lists, N, scale, x, labels, targets: of the (support) set; q...: of the query set, for UNROLLED;
    v: directions, or for UNROLLED the step sizes A_k; vectors: room for vectors of parameters."""
    table, rtable, reals, lists = unowned(table), unowned(rtable), unowned(reals), unowned(lists)
    x, labels, targets, w, v, z, grad = (
        unowned(x),
        unowned(labels),
        unowned(targets),
        unowned(w),
        unowned(v),
        unowned(z),
        unowned(grad),
    )
    work, rwork, places, vectors = unowned(work), unowned(rwork), unowned(places), unowned(vectors)
    if what == PRIMAL:
        primal_tasks(
            lo,
            hi,
            table,
            reals,
            lists,
            N,
            kind,
            scale,
            x,
            labels,
            targets,
            w,
            z,
            loss,
            finite,
            grad,
            work,
            places,
            vectors,
        )
    elif what < UNROLLED:
        product_tasks(
            lo,
            hi,
            what,
            table,
            rtable,
            reals,
            lists,
            N,
            kind,
            scale,
            x,
            labels,
            w,
            v,
            grad,
            work,
            rwork,
            places,
            vectors,
        )
    else:
        unrolled(
            lo,
            hi,
            steps,
            order,
            table,
            rtable,
            reals,
            lists,
            N,
            kind,
            scale,
            x,
            labels,
            targets,
            unowned(qtable),
            unowned(qlists),
            Nq,
            qscale,
            unowned(xq),
            unowned(qlabels),
            unowned(qtargets),
            w,
            v,
            z,
            loss,
            finite,
            grad,
            work,
            rwork,
            places,
            unowned(qwork),
            unowned(qplaces),
            vectors,
        )


TABLE, LIST, ROW, MATRIX, STACK, LABELS = (
    "int64[:,::1]",
    "int64[::1]",
    "F[::1]",
    "F[:,::1]",
    "F[:,:,::1]",
    "int64[:,::1]",
)
SET = (
    TABLE,
    LIST,
    "int64",
    "F",
    MATRIX,
    LABELS,
    STACK,
)  # table, lists, N, scale, x, labels, targets
SIGNATURE = (
    *["int64"] * 6,
    MATRIX,
    TABLE,
    *SET,
    *SET,
    MATRIX,
    MATRIX,
    STACK,
    ROW,
    "boolean[::1]",
    MATRIX,
    MATRIX,
    "int16[:,::1]",
    ROW,
    ROW,
    "int16[::1]",
    MATRIX,
)
