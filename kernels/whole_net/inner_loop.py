"""The inner loop and the way back through it, for one task after another:

    phi_{k+1} = phi_k - A_k * grad f(phi_k)                      k = 0 .. K-1
    lam_K     = grad g(phi_K)
    lam_k     = lam_{k+1} - H_f(phi_k) (A_k * lam_{k+1})         k = K-1 .. 0

A task's vectors never leave the cache between one pass and the next, nor the order of the products. The recursion with a call for each pass
over all tasks remains the reference.
"""

from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.whole_net.derivatives import hessian_product, keep_outputs, primal
from refmaml.kernels.whole_net.filter_order import from_products, to_products, turn
from refmaml.kernels.whole_net.vectors import all_finite, multiply, step, subtract


def room(steps, slots, rates, order):
    """How many vectors of parameters a thread has at a time: see `parts`."""
    return 4 + rates + (steps + 1 if order > 1 else min(steps + 1, 3)) + slots


@inner()
def parts(vectors, rates, slots):
    """(A_k; phi_k; phi_k turned, as many as there is room for); four rows stand before them: lam, v, v turned, and a gradient. Of the
    phi_k, all where there is a way back through them; else phi_0, which tasks may share, and two rows that the others take by turns."""
    phis, turned = 4 + rates, len(vectors) - slots
    return vectors[4:phis], vectors[phis:turned], vectors[turned:]


@inlined()
def row(k, rows):
    """Which of so many rows phi_k has."""
    return k if k < rows else 2 - k % 2


@inner()
def unrolled(
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
    qtable,
    qlists,
    Nq,
    qscale,
    xq,
    qlabels,
    qtargets,
    w,
    rates,
    z,
    loss,
    finite,
    grad,
    work,
    rwork,
    places,
    qwork,
    qplaces,
    vectors,
):
    """Query loss, outputs and lam_0 of tasks lo .. hi, and whether every gradient on the way was finite; order 1: lam_0 = lam_K.

    work, places, turned: one for each step; or for fewer, and the pass of a step that has lost its own is run again on the way back.
    """
    lam, v, v_turned, gradient = vectors[0], vectors[1], vectors[2], vectors[3]
    slots = len(work)
    A, phis, turned = parts(vectors, len(rates), slots)
    rows = len(phis)
    for k in range(len(rates)):
        to_products(table, lists, A[k], rates[k])
    for t in range(lo, hi):
        own_labels, own_targets = labels[t % len(labels)], targets[t % len(targets)]
        new, good = t == lo or len(w) > 1, True
        if new:
            to_products(table, lists, phis[0], w[t % len(w)])
        for k in range(steps):
            here, phi = k % slots, phis[row(k, rows)]
            if k > 0 or new or slots < steps:
                turn(table, lists, turned[here], phi)
            primal(
                table,
                reals,
                lists,
                N,
                kind,
                scale,
                x[t],
                own_labels,
                own_targets,
                phi,
                turned[here],
                gradient,
                work[here],
                places[here],
            )
            good = good and all_finite(gradient)
            step(phis[row(k + 1, rows)], phi, A[k % len(A)], gradient)
        phi = phis[row(steps, rows)]
        turn(qtable, qlists, v_turned, phi)
        loss[t] = primal(
            qtable,
            reals,
            qlists,
            Nq,
            kind,
            qscale,
            xq[t],
            qlabels[t % len(qlabels)],
            qtargets[t % len(qtargets)],
            phi,
            v_turned,
            lam,
            qwork,
            qplaces,
        )
        keep_outputs(qtable, z[t], qwork, Nq)
        for k in range(steps - 1, -1, -1) if order > 1 else range(0):
            here, phi = k % slots, phis[k]
            if k < steps - slots:
                turn(table, lists, turned[here], phi)
                primal(
                    table,
                    reals,
                    lists,
                    N,
                    kind,
                    scale,
                    x[t],
                    own_labels,
                    own_targets,
                    phi,
                    turned[here],
                    gradient,
                    work[here],
                    places[here],
                )
            multiply(v, A[k % len(A)], lam)
            turn(table, lists, v_turned, v)
            hessian_product(
                table,
                rtable,
                reals,
                lists,
                N,
                kind,
                scale,
                x[t],
                own_labels,
                phi,
                turned[here],
                v,
                v_turned,
                gradient,
                work[here],
                rwork,
                places[here],
            )
            subtract(lam, gradient)
        from_products(table, lists, grad[t], lam)
        finite[t] = good and all_finite(lam)
