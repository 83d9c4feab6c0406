"""The recursions of refmaml.methods with every choice a field of `Loop`, so that a
mistake is a field changed.

    phi_{k+1} = phi_k - A_k * d_k,  d_k the rule's direction of grad f(phi_k)
    lam_k     = lam_{k+1} + dphi_k + c_k H_f(phi_k) gam_k + w_k grad g(phi_k)

gam_k and dphi_k are the rule's pullback of -A_k lam_{k+1} (refmaml/update_rules).
"""

from dataclasses import dataclass

import numpy as np

from refmaml.doctor.joint_statistics import FirstExamples
from refmaml.doctor.laplace_variants import laplace_gradients
from refmaml.doctor.learned_through import derivative
from refmaml.doctor.method_table import DISPLACEMENT, NO_LOOP, PER_PARAMETER, entry
from refmaml.doctor.unrolled_forward import data, descend, descend_in_turn, rule_mask
from refmaml.doctor.wrong_kernels import WRONG, support_statistics
from refmaml.errors import expect
from refmaml.update_rules import Adam, UpdateRule


@dataclass(frozen=True)
class Loop:
    """The choices of a method with an inner loop.

    steps            K
    rate             a factor on every step size, or a tuple of one for each step
    factors          ((pattern of names, factor), ...): factors on some step sizes
    curvature        c_k, the factor of the H term
    hessian_at       where H is taken: "each" phi_k, "start", "end", or "next" phi_{k+1}
    jacobian         "each": that of every step; "once": of one step of the summed
                     length from phi_0
    back             only the last so many steps are differentiated; None: all
    adapts           patterns of what adapts, at the method's inner_lr; None: the
                     method's
    product          "hvp" or "gauss_newton_product"
    support, query   which set the inner and the outer loss are measured on
    base             "previous": phi_k; "start": every step begins at phi_0; "once":
                     every step takes the gradient at phi_0
    weights          w_0 .. w_K: "method"; "start", "last": that one alone; "after": all
                     but w_0 alike; "all": all alike; or a tuple of K + 1 numbers
    rule             the update rule, one of refmaml.update_rules or wrong_rules.py
    anchor           strength of the term (anchor/2) |phi - phi_0|^2 in the inner loss
    explicit         whether that term and the rule's weight decay, which are no part of
                     grad f, are differentiated
    decay            weight decay in the inner loss
    rates            gradient of learned step sizes: "adjoint"; "query", "negative",
                     "zero", "first", "last"
    through          what function of the learned number a step size is, as in
                     learned_through.py; "": as the case has it
    mixed            whether parameters that do not adapt get their second-order term
    accumulated      whether the inner losses' gradients are added to the outer one
    kernels, query_kernels     a key of WRONG, or for the query "support statistics"
    laplace          LLAMA's term: see laplace_variants.py
    places           the mini-batches: "method" or "all"
    start            where a task starts: "theta"; "last task": where the task before
                     ended; "last task, detached": not differentiated through
    carry            whether the rule's state goes on from task to task
    direction        Reptile: "displacement", "blend", "adapted", "query"
    tasks            which tasks count: see mean_over
    """

    steps: int
    rate: float | tuple = 1.0
    factors: tuple = ()
    adapts: tuple | None = None
    curvature: float = 1.0
    hessian_at: str = "each"
    jacobian: str = "each"
    back: int | None = None
    product: str = "hvp"
    support: str = "support"
    query: str = "query"
    base: str = "previous"
    weights: str | tuple = "method"
    rule: UpdateRule = UpdateRule()  # frozen, so that all may share it
    anchor: float = 0.0
    explicit: bool = True
    decay: float = 0.0
    rates: str = "adjoint"
    through: object = ""
    mixed: bool = True
    accumulated: bool = False
    kernels: str = ""
    query_kernels: str = ""
    laplace: str = "method"
    places: str = "method"
    start: str = "theta"
    carry: bool = False
    direction: str = "displacement"
    tasks: str | tuple = "all"


def right_loop(method):
    """The Loop that is the method itself; not for iMAML."""
    known, rule = entry(method), getattr(method, "rule", UpdateRule())
    if getattr(method, "optimizer", "sgd") == "adam":
        expect(
            method.moment == "fresh",
            "method",
            "Reptile with moment='fresh', whose meta-parameters are theta alone",
            "moment='carried'",
        )
        rule = Adam(betas=(0.0, method.beta2), eps=method.eps)
    return Loop(
        steps=0 if known.kind == NO_LOOP else method.inner_steps,
        rule=rule,
        anchor=getattr(method, "anchor", 0.0),
        explicit=known.second_order,
        curvature=float(known.second_order),
    )


def task_rows(case, loop):
    """The meta-gradient of each task as `loop` has it, (T, M)."""
    rows = displacement_rows if entry(case.method).kind == DISPLACEMENT else adjoint_rows
    if loop.carry or loop.start != "theta":
        return rows_in_turn(case, loop, rows)
    return rows(case, loop, descend(case, loop))


def rows_in_turn(case, loop, rows_of):
    """The same where a task depends on those before it.

    What a task's start contributes is in the row of the first task.
    """
    rows, later, P = [], 0.0, case.net.num_params
    runs = descend_in_turn(case, loop)
    for t, run in reversed(list(enumerate(runs))):
        row = rows_of(case.with_(batch=case.batch[t : t + 1]), loop, run, later)
        if loop.start == "last task" and t > 0:
            later, row = row[:, :P], np.concatenate([0 * row[:, :P], row[:, P:]], axis=1)
        rows.append(row)
    return np.concatenate(rows[::-1])


def mean_over(rows, tasks, weights=None):
    """1/T times the sum over the tasks that count.

    tasks    "all", "first", "last", "not first", "not last"; "alike": all, without the
             weights; or a tuple of T coefficients in place of the weights
    weights  (T,), or None for 1 each
    """
    if isinstance(tasks, tuple):
        weights, tasks = np.array(tasks), "all"
    if weights is not None and tasks != "alike":
        rows = weights[:, None] * rows
    counted = {
        "all": rows,
        "alike": rows,
        "first": rows[:1],
        "last": rows[-1:],
        "not first": rows[1:],
        "not last": rows[:-1],
    }[tasks]
    return counted.sum(axis=0) / len(rows)


# ---- backward ------------------------------------------------------------------------


def loss_weights(case, loop):
    """w_0 .. w_K."""
    K = loop.steps
    if isinstance(loop.weights, tuple):
        return loop.weights
    if loop.weights == "method" and hasattr(case.method, "loss_weights"):
        given = case.method.loss_weights or (1 / case.method.inner_steps,) * case.method.inner_steps
        return (0.0, *given[:K], *(given[-1:] * (K - len(given))))
    weights = {
        "start": (1.0,) + (0.0,) * K,
        "after": (0.0,) + (1 / max(K, 1),) * K,
        "all": (1 / (K + 1),) * (K + 1),
    }
    return weights.get(loop.weights, (0.0,) * K + (1.0,))


def query_gradients(case, loop, run):
    """w_k grad g(phi_k) for each k, or None where w_k = 0."""
    x, y = data(case, loop.query)
    net = case.net
    if loop.query == "query first":
        net = net.with_loss(FirstExamples(net.loss_function, case.batch.x_query.shape[1]))
    if loop.query_kernels == "support statistics":
        phi = np.broadcast_to(run.phis[-2], (len(x), net.num_params))
        net = support_statistics(net, phi, data(case, "support")[0])
    elif loop.query_kernels:
        net = net.with_kernels(WRONG[loop.query_kernels](net.kernels))
    return [
        None if w == 0 else w * net.primal(phi, x, y, keep=False).grad
        for w, phi in zip(loss_weights(case, loop), run.phis, strict=True)
    ]


def adjoint_rows(case, loop, run, later=0.0):
    """lam_0 of each task, and dM/dA where the method learns A: (T, M).

    later   (T, P), what is added to lam_K
    """
    injected = query_gradients(case, loop, run)
    direct = sum(g for g in injected if g is not None)
    if loop.accumulated:
        extra = [primal.grad for primal in run.primals] + [0]
        injected = [(0 if g is None else g) + e for g, e in zip(injected, extra, strict=True)]
    zero = np.zeros((len(case.batch), case.net.num_params))
    at_end, at_start = laplace_gradients(case, loop, run)
    lam = zero + later + (0 if injected[-1] is None else injected[-1]) + at_end
    start, dstate, of_rates, mask = zero + at_start, {}, [], rule_mask(case, loop)
    for k in range(loop.steps - 1, -1, -1):
        of_rates.append(-run.directions[k] * (lam if loop.rates != "query" else direct))
        dd = -run.rates[k] * lam
        gam, dstate, dphi = loop.rule.pullback(run.net, dd, dstate, *run.arguments[k])
        through = through_gradient(loop, run, k, mask * gam)
        if loop.explicit:
            through = through + dphi + loop.anchor * mask * gam
            start = start - loop.anchor * mask * gam
        kept, start = (lam, start) if loop.base != "start" else (zero, start + lam)
        once = "once" in (loop.base, loop.jacobian)
        kept, start = (kept, start + through) if once else (kept + through, start)
        lam = kept + (0 if injected[k] is None else injected[k])
    return assembled(case, loop, lam + start, direct, of_rates[::-1])


def through_gradient(loop, run, k, gam):
    """c_k H gam: the adjoint that step k's gradient passes on to phi_k."""
    differentiated = loop.back is None or k >= loop.steps - loop.back
    factor = loop.curvature if differentiated else 0.0
    if factor == 0:
        return loop.decay * gam
    return factor * getattr(run.net, loop.product)(run.primals[k], gam) + loop.decay * gam


def assembled(case, loop, lam, direct, of_rates):
    """The rows (T, M) of the method from lam_0 and each dM/dA_k."""
    method, net, known = case.method, case.net, entry(case.method)
    if known.kind != NO_LOOP and not loop.mixed:
        lam = np.where(method.adapting(net, case.theta) > 0, lam, direct)
    if known.context:
        return lam * (1 - method.adapting(net, case.theta))
    if known.step_sizes is None:
        return lam
    K = loop.steps
    signs = {
        "negative": [-1] * K,
        "zero": [0] * K,
        "first": [1] + [0] * (K - 1),
        "last": [0] * (K - 1) + [1],
    }.get(loop.rates, [1] * K)
    of_rates = [c * dA for c, dA in zip(signs, of_rates, strict=True)]
    factors = derivative(loop.through or case.step_sizes_through, case.meta[net.num_params :])
    if known.step_sizes == PER_PARAMETER:
        of_vector = method.adapting(net, case.theta) * sum(of_rates)
        return np.concatenate([lam, factors * of_vector], axis=1)
    full = (of_rates + [np.zeros_like(lam)] * method.inner_steps)[: method.inner_steps]
    mask, starts = method.adapting(net, lam), [part.start for part in net.blocks]
    sums = [net.kernels.sum_segments(mask * dA, starts) for dA in full]
    return np.concatenate([lam, factors * np.concatenate(sums, axis=1)], axis=1)


def displacement_rows(case, loop, run, later=0.0):
    """theta - phi_K of each task, or what is mistaken for it."""
    theta, phi = case.theta, run.phis[-1]
    if loop.direction == "query":
        x, y = data(case, loop.query)
        return case.net.gradient(phi, x, y)
    return {"displacement": theta - phi, "blend": 2 * theta - phi, "adapted": phi}[loop.direction]


# ---- updates after every task --------------------------------------------------------


def sequential(case, loop, beta):
    """(1/T) sum_t G_t(theta_{t-1}) with theta_t = theta_{t-1} - beta G_t(theta_{t-1}):
    an outer step after every task."""
    total, meta = np.zeros_like(case.meta), case.meta
    for t in range(len(case.batch)):
        row = task_rows(case.with_(meta=meta, batch=case.batch[t : t + 1]), loop)[0]
        total, meta = total + row, meta - beta * row
    return total / len(case.batch)
