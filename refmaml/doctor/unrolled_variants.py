"""The recursions of refmaml.methods with every choice a field of `Loop`, so that a
mistake is a field changed.

    phi_{k+1} = phi_k - A_k * step(grad f(phi_k))
    lam_k     = lam_{k+1} + c_k H_f(phi_k) step'(-A_k lam_{k+1}) + w_k grad g(phi_k)
"""

from dataclasses import dataclass

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor.method_table import DISPLACEMENT, NO_LOOP, PER_PARAMETER, entry
from refmaml.doctor.update_rules import Adam, Descent
from refmaml.doctor.wrong_kernels import WRONG, support_statistics
from refmaml.errors import expect


@dataclass(frozen=True)
class Loop:
    """The choices of a method with an inner loop.

    steps            K
    rate             a factor on every step size
    factors          ((pattern of names, factor), ...): factors on some step sizes
    curvature        c_k, the factor of the H term
    back             only the last so many steps are differentiated; None: all
    adapts           patterns of what adapts, at the method's inner_lr; None: the
                     method's
    product          "hvp" or "gauss_newton_product"
    support, query   which set the inner and the outer loss are measured on
    base             "previous": phi_k; "start": every step begins at phi_0; "once":
                     every step takes the gradient at phi_0
    weights          w_0 .. w_K: "method"; "start", "last": that one alone; "after": all
                     but w_0 alike; "all": all alike
    rule             the inner optimiser, a class of update_rules.py
    decay            weight decay in the inner loss
    rates            gradient of learned step sizes: "adjoint"; "query", "negative",
                     "zero", "first", "last"
    mixed            whether parameters that do not adapt get their second-order term
    accumulated      whether the inner losses' gradients are added to the outer one
    kernels, query_kernels     a key of WRONG, or for the query "support statistics"
    places           Reptile's mini-batches: "method" or "all"
    carry            whether Reptile's optimiser keeps its state from task to task
    direction        Reptile: "displacement", "blend", "adapted", "query"
    tasks            which tasks count: "all", "first", "last", "not first", "not last"
    """

    steps: int
    rate: float = 1.0
    factors: tuple = ()
    adapts: tuple | None = None
    curvature: float = 1.0
    back: int | None = None
    product: str = "hvp"
    support: str = "support"
    query: str = "query"
    base: str = "previous"
    weights: str = "method"
    rule: object = Descent()
    decay: float = 0.0
    rates: str = "adjoint"
    mixed: bool = True
    accumulated: bool = False
    kernels: str = ""
    query_kernels: str = ""
    places: str = "method"
    carry: bool = False
    direction: str = "displacement"
    tasks: str = "all"


def right_loop(method):
    """The Loop that is the method itself; not for iMAML."""
    known, rule = entry(method), Descent()
    if getattr(method, "optimizer", "sgd") == "adam":
        expect(
            method.moment == "fresh",
            "method",
            "Reptile with moment='fresh', whose meta-parameters are theta alone",
            "moment='carried'",
        )
        rule = Adam(0.0, method.beta2, method.eps)
    steps = 0 if known.kind == NO_LOOP else method.inner_steps
    return Loop(steps, rule=rule, curvature=float(known.second_order))


def task_rows(case, loop):
    """The meta-gradient of each task as `loop` has it, (T, M)."""
    run = descend(case, loop)
    rows = displacement_rows if entry(case.method).kind == DISPLACEMENT else adjoint_rows
    return rows(case, loop, run)


def mean_over(rows, tasks):
    """1/T times the sum over the tasks that count."""
    counted = {
        "all": rows,
        "first": rows[:1],
        "last": rows[-1:],
        "not first": rows[1:],
        "not last": rows[:-1],
    }[tasks]
    return counted.sum(axis=0) / len(rows)


# ---- forward -------------------------------------------------------------------------


@dataclass
class Run:
    """The forward pass: the net, phi_0 .. phi_K, each step's primal pass, values saved
    by the update rule, the rule's steps, and the step sizes."""

    net: object
    phis: list
    primals: list
    saved: list
    steps: list
    rates: list


def data(case, which):
    """(x, y) of the "support", the "query" or "both" sets."""
    b = case.batch
    if which == "both":
        x = np.concatenate([b.x_support, b.x_query], axis=1)
        return x, np.concatenate([b.y_support, b.y_query], axis=1)
    return (b.x_support, b.y_support) if which == "support" else (b.x_query, b.y_query)


def start_and_rates(case, loop):
    """phi_0 (1, P) and A_0 .. A_{K-1} (P,), the loop's factors included."""
    if entry(case.method).kind == NO_LOOP:
        return case.meta[None], []
    phi, rates = case.method.start(case.net, case.meta)
    if loop.adapts is not None:
        rates = [case.method.inner_lr * case.net.mask(loop.adapts)]
    factor = np.full(case.net.num_params, loop.rate)
    for pattern, value in loop.factors:
        factor[case.net.mask((pattern,))] *= value
    return phi, [factor * rates[min(k, len(rates) - 1)] for k in range(loop.steps)]


def mini_batches(case, loop, examples):
    """The support examples that each step uses, as indices."""
    if loop.places == "all" or getattr(case.method, "inner_batch", None) is None:
        return [slice(None)] * loop.steps
    batches = case.method.mini_batches(examples)
    return [batches[k % len(batches)] for k in range(loop.steps)]


def descend(case, loop):
    """The inner loop of all tasks."""
    net = case.net
    if loop.kernels:
        net = net.with_kernels(WRONG[loop.kernels](net.kernels))
    x, y = data(case, loop.support)
    phi, rates = start_and_rates(case, loop)
    places = mini_batches(case, loop, x.shape[1])
    if not loop.carry:
        return inner_loop(net, phi, rates, x, y, places, loop)[0]
    runs, state = [], None
    for t in range(len(x)):  # task t + 1 begins with the optimiser's state after task t
        run, state = inner_loop(net, phi, rates, x[t : t + 1], y[t : t + 1], places, loop, state)
        runs.append(run)
    phis = [np.concatenate([run.phis[k] for run in runs]) for k in range(loop.steps + 1)]
    return Run(net, phis, [], [], [], rates)


def inner_loop(net, phi, rates, x, y, places, loop, state=None):
    """(Run, the optimiser's last state) from phi."""
    run = Run(net, [phi], [], [], [], rates)
    for k, A in enumerate(rates):
        point = run.phis[0] if loop.base == "once" else run.phis[-1]
        primal = net.primal(point, x[:, places[k]], y[:, places[k]])
        step, state, saved = loop.rule.forward(primal.grad + loop.decay * point, state, k)
        start = run.phis[0] if loop.base == "start" else run.phis[-1]
        run.phis.append(start - A * step)
        run.primals.append(primal)
        run.saved.append(saved)
        run.steps.append(step)
    return run, state


# ---- backward ------------------------------------------------------------------------


def loss_weights(case, loop):
    """w_0 .. w_K."""
    K = loop.steps
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
    if loop.query_kernels == "support statistics":
        phi = np.broadcast_to(run.phis[-2], (len(x), net.num_params))
        net = support_statistics(net, phi, data(case, "support")[0])
    elif loop.query_kernels:
        net = net.with_kernels(WRONG[loop.query_kernels](net.kernels))
    return [
        None if w == 0 else w * net.primal(phi, x, y, keep=False).grad
        for w, phi in zip(loss_weights(case, loop), run.phis, strict=True)
    ]


def adjoint_rows(case, loop, run):
    """lam_0 of each task, and dM/dA where the method learns A: (T, M)."""
    injected = query_gradients(case, loop, run)
    direct = sum(g for g in injected if g is not None)
    if loop.accumulated:
        extra = [primal.grad for primal in run.primals] + [0]
        injected = [(0 if g is None else g) + e for g, e in zip(injected, extra, strict=True)]
    zero = np.zeros((len(case.batch), case.net.num_params))
    lam = zero + (0 if injected[-1] is None else injected[-1])
    start, dstate, of_rates = zero, None, []
    for k in range(loop.steps - 1, -1, -1):
        of_rates.append(-run.steps[k] * (lam if loop.rates != "query" else direct))
        dg, dstate = loop.rule.backward(-run.rates[k] * lam, dstate, run.saved[k])
        through = through_gradient(loop, run, k, dg)
        kept, start = (lam, start) if loop.base != "start" else (zero, start + lam)
        kept, start = (kept + through, start) if loop.base != "once" else (kept, start + through)
        lam = kept + (0 if injected[k] is None else injected[k])
    return assembled(case, loop, lam + start, direct, of_rates[::-1])


def through_gradient(loop, run, k, dg):
    """c_k H dg: the adjoint that step k's gradient passes on to phi_k."""
    differentiated = loop.back is None or k >= loop.steps - loop.back
    factor = loop.curvature if differentiated else 0.0
    if factor == 0:
        return loop.decay * dg
    return factor * getattr(run.net, loop.product)(run.primals[k], dg) + loop.decay * dg


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
    if known.step_sizes == PER_PARAMETER:
        of_vector = method.adapting(net, case.theta) * sum(of_rates)
        return np.concatenate([lam, of_vector], axis=1)
    full = (of_rates + [np.zeros_like(lam)] * method.inner_steps)[: method.inner_steps]
    mask, starts = method.adapting(net, lam), [part.start for part in net.blocks]
    sums = [net.kernels.sum_segments(mask * dA, starts) for dA in full]
    return np.concatenate([lam, *sums], axis=1)


def displacement_rows(case, loop, run):
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
        b = case.batch[t : t + 1]
        batch = Batch(b.x_support, b.y_support, b.x_query, b.y_query)
        row = task_rows(case.with_(meta=meta, batch=batch), loop)[0]
        total, meta = total + row, meta - beta * row
    return total / len(case.batch)
