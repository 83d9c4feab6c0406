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

from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.whole_net.derivatives import copy_outputs, hessian_product, primal
from refmaml.kernels.whole_net.filter_order import (
    from_product_order,
    to_product_order,
    transpose_filters,
)
from refmaml.kernels.whole_net.rule_numbers import MOMENTUM, PLAIN, ZERO, G
from refmaml.kernels.whole_net.update_rules import pull_back, row_of, take_step
from refmaml.kernels.whole_net.vectors import all_finite, multiply, step, subtract

LAM, V, V_TRANSPOSED, GRADIENT, SCRATCH = range(5)  # the first rows of `vectors`


class Rule(NamedTuple):
    """An update rule: PLAIN, SGD or ADAM, its numbers of each step, and its vectors."""

    kind: int
    numbers: np.ndarray
    memory: np.ndarray


def num_vectors(steps, slots, rates, order):
    """How many parameter vectors a thread needs: the rows that `sections` divides."""
    return SCRATCH + rates + (steps + 1 if order > 1 else min(steps + 1, 3)) + slots


@inner()
def sections(vectors, rates, slots, rule_rows):
    """(A_k, phi_k, phi_k with transposed filters, the rule's memory): the rows of
    `vectors` after SCRATCH.

    Order 2 has a row for every phi_k. Order 1 has three: phi_0, which tasks may share,
    and two that the others use in turn.
    """
    end = len(vectors) - rule_rows
    phis, transposed = SCRATCH + rates, end - slots
    return vectors[SCRATCH:phis], vectors[phis:transposed], vectors[transposed:end], vectors[end:]


@inlined()
def phi_row(k, rows):
    """The row of phi_k among so many rows."""
    return k if k < rows else 2 - k % 2


@inner()
def descend(e, t, steps, new_start, A, phis, transposed, rule, gradient, work, winners):
    """phi_1 .. phi_K of task t from phi_0. Returns whether all gradients were finite.

    new_start: whether phi_0 differs from that of the task before.
    """
    slots, finite = len(work), True
    for k in range(steps):
        slot, phi = k % slots, phis[phi_row(k, len(phis))]
        if k > 0 or new_start or slots < steps:
            transpose_filters(e.table, e.lists, transposed[slot], phi)
        if rule.kind != PLAIN:
            gradient = rule.memory[row_of(G, k, len(rule.memory))]
        primal(e, t, phi, transposed[slot], gradient, work[slot], winners[slot])
        finite = finite and all_finite(gradient)
        after, rates = phis[phi_row(k + 1, len(phis))], A[k % len(A)]
        if rule.kind == PLAIN:
            step(after, phi, rates, gradient)
        else:
            take_step(rule.kind, k, after, phi, rates, rule.numbers[k], rule.memory)
    return finite


@inner()
def adjoint(e, t, steps, A, phis, transposed, rule, vectors, work, rwork, winners):
    """lam_0 of task t in place of lam_K.

    The pass of a step whose slot was overwritten is recomputed.
    """
    slots = len(work)
    lam, v, vt, gradient = vectors[LAM], vectors[V], vectors[V_TRANSPOSED], vectors[GRADIENT]
    if rule.kind != PLAIN:
        rule.memory[:MOMENTUM] = rule.numbers[0, ZERO]  # the adjoints of the state
    for k in range(steps - 1, -1, -1):
        slot, phi = k % slots, phis[k]
        if k < steps - slots:
            transpose_filters(e.table, e.lists, transposed[slot], phi)
            primal(e, t, phi, transposed[slot], gradient, work[slot], winners[slot])
        if rule.kind == PLAIN:
            multiply(v, A[k % len(A)], lam)
        else:
            pull_back(rule.kind, k, v, lam, phi, A[k % len(A)], rule.numbers[k], rule.memory)
        transpose_filters(e.table, e.lists, vt, v)
        hessian_product(
            e, t, phi, transposed[slot], v, vt, gradient, work[slot], rwork, winners[slot]
        )
        subtract(lam, gradient)


# fmt: off
@inner()
def unrolled(lo, hi, steps, order, kind, numbers, rule_rows, support, query, w, rates, z, loss,
             finite, grad, work, rwork, winners, qwork, qwinners, vectors):
    """Query loss, outputs and lam_0 of tasks lo .. hi; order 1: lam_0 = lam_K.

    finite: whether every gradient of the inner loop and lam_0 were finite.
    work, winners: a slot for each step, or fewer; then `adjoint` recomputes passes.
    """
    lam, qt, gradient = vectors[LAM], vectors[V_TRANSPOSED], vectors[GRADIENT]
    A, phis, transposed, memory = sections(vectors, len(rates), len(work), rule_rows)
    rule = Rule(kind, numbers, memory)
    for k in range(len(rates)):
        to_product_order(support.table, support.lists, A[k], rates[k])
    for t in range(lo, hi):
        new_start = t == lo or len(w) > 1
        if new_start:
            to_product_order(support.table, support.lists, phis[0], w[t % len(w)])
        inner_finite = descend(support, t, steps, new_start, A, phis, transposed, rule, gradient,
                               work, winners)
        phi = phis[phi_row(steps, len(phis))]
        transpose_filters(query.table, query.lists, qt, phi)
        loss[t] = primal(query, t, phi, qt, lam, qwork, qwinners)
        copy_outputs(query.table, z[t], qwork, query.N)
        if order > 1:
            adjoint(support, t, steps, A, phis, transposed, rule, vectors, work, rwork, winners)
        from_product_order(support.table, support.lists, grad[t], lam)
        finite[t] = inner_finite and all_finite(lam)
# fmt: on
