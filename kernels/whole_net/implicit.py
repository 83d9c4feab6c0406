"""iMAML as one kernel: a thread takes a task from theta to its implicit gradient.

    phi* from theta               by an inner solver (inner_solvers.py)
    b = mask * grad g(phi*)       a pass on the query set
    (I + H_aa / lambda) u = b     by conjugate gradients (conjugate_gradients.py)

Where some parameters b do not adapt, dM/dtheta_b = grad_b g - H_ba u / lambda. The
vectors of a task stay in product order throughout. refmaml/methods/imaml.py, with one
call per pass over all tasks, is the reference.
"""

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part, row, unowned
from refmaml.kernels.whole_net.conjugate_gradients import System, conjugate_gradients, hessian_times
from refmaml.kernels.whole_net.cpu import MATRIX, RANGE, RESULTS, TASKS
from refmaml.kernels.whole_net.derivatives import Examples, copy_outputs, primal
from refmaml.kernels.whole_net.filter_order import from_product_order, to_product_order
from refmaml.kernels.whole_net.inner_solvers import (
    Inner,
    controlled_descent,
    gradient_descent,
    newton_cg,
)
from refmaml.kernels.whole_net.solver_numbers import (
    CG_TOL,
    CONTROLLED_DESCENT,
    GRADIENT_DESCENT,
    NONFINITE,
    RATE,
    STRENGTH,
)
from refmaml.kernels.whole_net.vectors import multiply, require_finite, scaled

# Rows of `vectors`, a thread's parameter vectors; those of the update rule follow.
# fmt: off
(THETA, MASK, RATES, PHI, OTHER, WT, GRADIENT, TRIAL, QUERY,
 X, R, P, PRODUCT, PT, RULE) = range(15)


@inner()
def frozen_part(gradient, query, product, mask, strength):
    """gradient += (1 - mask) (grad g - H u / lambda)."""
    one = strength / strength
    for i in range(len(gradient)):
        gradient[i] += (one - mask[i]) * (query[i] - product[i] / strength)


@external(f"{RANGE}, int64, int64, int64, boolean, F[::1], int64, {MATRIX}, int64, {MATRIX}, "
          f"int64[:,::1], {TASKS}, {TASKS}, F[::1], F[::1], {RESULTS}, int64[::1], {MATRIX}, "
          f"F[::1], int16[::1], F[::1], F[::1], int16[::1], {MATRIX}", from_python=True)
def implicit(lo, hi, solver, steps, cg_steps, all_adapt, numbers, kind, rule_numbers, loss_kind,
             reals, rtable,
             table, lists, N, scale, x, labels, targets,
             qtable, qlists, Nq, qscale, xq, qlabels, qtargets,
             theta, mask, z, loss, finite, grad, status, residuals,
             work, winners, rwork, qwork, qwinners, vectors):
    """Query outputs and losses, gradients, and how CG ended, of tasks lo .. hi.

    theta, mask        (P,), shared by all tasks; all_adapt: whether mask is all 1
    solver, numbers    those of solver_numbers.py; kind, rule_numbers: the update rule
    finite             whether losses, gradients and the products of CG were finite
    status, residuals  (T,), (T, 3): solver_numbers.py
    """
    table, rtable, qtable = unowned(table), unowned(rtable), unowned(qtable)
    lists, qlists, reals = unowned(lists), unowned(qlists), unowned(reals)
    full = Examples(table, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    lean = Examples(rtable, rtable, reals, lists, N, loss_kind, scale, x, labels, targets)
    query = Examples(qtable, rtable, reals, qlists, Nq, loss_kind, qscale, xq, qlabels, qtargets)
    to_product_order(table, lists, row(vectors, THETA), theta)
    to_product_order(table, lists, row(vectors, MASK), mask)
    scaled(row(vectors, RATES), numbers[RATE], row(vectors, MASK))
    memory, strength = part(vectors, RULE, len(vectors)), numbers[STRENGTH]
    phi, wt, masks = row(vectors, PHI), row(vectors, WT), row(vectors, MASK)
    system = System(row(vectors, X), row(vectors, R), row(vectors, P), row(vectors, PRODUCT),
                    row(vectors, PT), phi, wt, masks, work, rwork, winners)
    for t in range(lo, hi):
        task_loss, flag = part(loss, t, t + 1), part(finite, t, t + 1)
        flag[0] = True
        p = Inner(numbers, row(vectors, THETA), masks, row(vectors, RATES), phi,
                  row(vectors, OTHER), wt, row(vectors, GRADIENT), row(vectors, TRIAL), task_loss,
                  flag, row(residuals, t))
        if solver == GRADIENT_DESCENT:
            gradient_descent(full, lean, t, p, steps, kind, rule_numbers, memory, work, rwork,
                             winners)
        elif solver == CONTROLLED_DESCENT:
            controlled_descent(full, lean, t, p, steps, work, rwork, winners)
        else:
            newton_cg(full, lean, t, p, system, steps, cg_steps, work, rwork, winners)
        g = row(vectors, QUERY)
        primal(query, t, task_loss, phi, wt, g, qwork, qwinners)
        require_finite(flag, task_loss, g)
        copy_outputs(qtable, row(z, t), qwork, Nq)
        multiply(system.r, masks, g)
        status[t], _ = conjugate_gradients(full, t, system, False, cg_steps, numbers[CG_TOL],
                                           strength, row(residuals, t))
        flag[0] = flag[0] and status[t] != NONFINITE
        if not all_adapt:
            hessian_times(full, t, system, system.x)
            frozen_part(system.x, g, system.product, masks, strength)
        from_product_order(table, lists, row(grad, t), system.x)
# fmt: on
