"""The inner loop and its adjoint recursion, one task after another:

    phi_{k+1} = phi_k - A_k * grad f(phi_k)                      k = 0 .. K-1
    lam_K     = grad g(phi_K)
    lam_k     = lam_{k+1} - H_f(phi_k) (A_k * lam_{k+1})         k = K-1 .. 0

The vectors of a task stay in the cache and in product order between the passes. The
recursion with one call per pass over all tasks is the reference
(refmaml/methods/inner_loop_adjoint.py).
"""

from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.whole_net.derivatives import copy_outputs, hessian_product, primal
from refmaml.kernels.whole_net.filter_order import (
    from_product_order,
    to_product_order,
    transpose_filters,
)
from refmaml.kernels.whole_net.vectors import all_finite, multiply, step, subtract

LAM, V, V_TRANSPOSED, GRADIENT, SCRATCH = range(5)  # the first rows of `vectors`


def num_vectors(steps, slots, rates, order):
    """How many parameter vectors a thread needs: the rows that `sections` divides."""
    return SCRATCH + rates + (steps + 1 if order > 1 else min(steps + 1, 3)) + slots


@inner()
def sections(vectors, rates, slots):
    """(A_k, phi_k, phi_k with transposed filters): the rows of `vectors` after SCRATCH.

    Order 2 has a row for every phi_k. Order 1 has three: phi_0, which tasks may share,
    and two that the others use in turn.
    """
    phis, transposed = SCRATCH + rates, len(vectors) - slots
    return vectors[SCRATCH:phis], vectors[phis:transposed], vectors[transposed:]


@inlined()
def phi_row(k, rows):
    """The row of phi_k among so many rows."""
    return k if k < rows else 2 - k % 2


@inner()
def descend(e, t, steps, new_start, A, phis, transposed, gradient, work, winners):
    """phi_1 .. phi_K of task t from phi_0. Returns whether all gradients were finite.

    new_start: whether phi_0 differs from that of the task before.
    """
    slots, finite = len(work), True
    for k in range(steps):
        slot, phi = k % slots, phis[phi_row(k, len(phis))]
        if k > 0 or new_start or slots < steps:
            transpose_filters(e.table, e.lists, transposed[slot], phi)
        primal(e, t, phi, transposed[slot], gradient, work[slot], winners[slot])
        finite = finite and all_finite(gradient)
        step(phis[phi_row(k + 1, len(phis))], phi, A[k % len(A)], gradient)
    return finite


@inner()
def adjoint(e, t, steps, A, phis, transposed, vectors, work, rwork, winners):
    """lam_0 of task t in place of lam_K.

    The pass of a step whose slot was overwritten is recomputed.
    """
    slots = len(work)
    lam, v, vt, gradient = vectors[LAM], vectors[V], vectors[V_TRANSPOSED], vectors[GRADIENT]
    for k in range(steps - 1, -1, -1):
        slot, phi = k % slots, phis[k]
        if k < steps - slots:
            transpose_filters(e.table, e.lists, transposed[slot], phi)
            primal(e, t, phi, transposed[slot], gradient, work[slot], winners[slot])
        multiply(v, A[k % len(A)], lam)
        transpose_filters(e.table, e.lists, vt, v)
        hessian_product(
            e, t, phi, transposed[slot], v, vt, gradient, work[slot], rwork, winners[slot]
        )
        subtract(lam, gradient)


# fmt: off
@inner()
def unrolled(lo, hi, steps, order, support, query, w, rates, z, loss, finite, grad, work, rwork,
             winners, qwork, qwinners, vectors):
    """Query loss, outputs and lam_0 of tasks lo .. hi; order 1: lam_0 = lam_K.

    finite: whether every gradient of the inner loop and lam_0 were finite.
    work, winners: a slot for each step, or fewer; then `adjoint` recomputes passes.
    """
    lam, qt, gradient = vectors[LAM], vectors[V_TRANSPOSED], vectors[GRADIENT]
    A, phis, transposed = sections(vectors, len(rates), len(work))
    for k in range(len(rates)):
        to_product_order(support.table, support.lists, A[k], rates[k])
    for t in range(lo, hi):
        new_start = t == lo or len(w) > 1
        if new_start:
            to_product_order(support.table, support.lists, phis[0], w[t % len(w)])
        inner_finite = descend(support, t, steps, new_start, A, phis, transposed, gradient, work,
                               winners)
        phi = phis[phi_row(steps, len(phis))]
        transpose_filters(query.table, query.lists, qt, phi)
        loss[t] = primal(query, t, phi, qt, lam, qwork, qwinners)
        copy_outputs(query.table, z[t], qwork, query.N)
        if order > 1:
            adjoint(support, t, steps, A, phis, transposed, vectors, work, rwork, winners)
        from_product_order(support.table, support.lists, grad[t], lam)
        finite[t] = inner_finite and all_finite(lam)
# fmt: on
