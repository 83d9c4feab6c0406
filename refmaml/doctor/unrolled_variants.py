"""The recursions of refmaml.methods with every choice a field of `Loop`, so that a known mistake is a field with another value.

phi_{k+1} = phi_k - A_k * step(grad f(phi_k))
lam_k     = lam_{k+1} + c_k H_f(phi_k) step'(-A_k lam_{k+1}) + w_k grad g(phi_k)
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from refmaml.batch import Batch
from refmaml.doctor.update_rules import Adam, Descent
from refmaml.doctor.wrong_kernels import WRONG, support_statistics
from refmaml.errors import expect
from refmaml.methods import CAVIA, ERM, FirstOrderMAML, MAMLPlusPlus, MetaSGD, Reptile


@dataclass(frozen=True)
class Loop:
    """steps         K
    rate             a factor on every step size; factors: ((pattern of names, factor), ...) on some
    curvature        c_k: the H term's factor; back: only the last so many steps are differentiated (None: all)
    adapts           patterns of what adapts at the method's inner_lr; None: the method's
    product          "hvp", or "gauss_newton_product"
    support, query   which set the inner and the outer loss are measured on
    base             "previous": phi_k; "start": every step begins at phi_0 again; "once": every step takes the gradient at phi_0
    weights          w_0 .. w_K: "method"; "start", "last": that one alone; "after": all but w_0 alike; "all": all alike
    rule             the inner optimiser; decay: weight decay in the inner loss
    rates            of learned step sizes: "adjoint"; "query", "negative", "zero", "first", "last"
    mixed            whether parameters that do not adapt get their second-order term
    accumulated      whether the inner losses' own gradients are added to the outer one
    kernels, query_kernels     a key of WRONG, or for the query "support statistics"
    places           Reptile: "method" or "all": its mini-batches; carry: whether its optimiser's state goes from task to task
    direction        Reptile: "displacement", "blend", "adapted", "query"
    tasks            "all", "first", "last", "not first", "not last": which tasks count
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
    rule = Descent()
    if isinstance(method, Reptile) and method.optimizer == "adam":
        expect(
            method.moment == "fresh",
            "method",
            "Reptile with moment='fresh', whose meta-parameters are theta alone",
            "moment='carried'",
        )
        rule = Adam(0.0, method.beta2, method.eps)
    return Loop(
        0 if isinstance(method, ERM) else method.inner_steps,
        rule=rule,
        curvature=0.0 if isinstance(method, FirstOrderMAML) else 1.0,
    )


def task_rows(case, loop):
    """The meta-gradient of each task as `loop` has it, (T, M)."""
    run = descend(case, loop)
    if isinstance(case.method, Reptile):
        return reptile_rows(case, loop, run)
    return adjoint_rows(case, loop, run)


def mean_over(rows, tasks):
    """The mean over tasks, or (1/T) times the sum over those that count."""
    those = {
        "all": rows,
        "first": rows[:1],
        "last": rows[-1:],
        "not first": rows[1:],
        "not last": rows[:-1],
    }[tasks]
    return those.sum(axis=0) / len(rows)


# ---- forward ---------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What the inner loop leaves: the nets it used, phi_0 .. phi_K, the primal pass and the rule's saved values of each step, rates."""

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
        return np.concatenate([b.x_support, b.x_query], axis=1), np.concatenate(
            [b.y_support, b.y_query], axis=1
        )
    return (b.x_support, b.y_support) if which == "support" else (b.x_query, b.y_query)


def rates_of(case, loop):
    """phi_0 (1, P) and A_0 .. A_{K-1} (P,) with the loop's factors."""
    if isinstance(case.method, ERM):
        return case.meta[None], []
    phi, rates = case.method.start(case.net, case.meta)
    if loop.adapts is not None:
        rates = [case.method.inner_lr * case.net.mask(loop.adapts)]
    factor = np.full(case.net.num_params, loop.rate)
    for pattern, value in loop.factors:
        factor[case.net.mask((pattern,))] *= value
    return phi, [factor * rates[min(k, len(rates) - 1)] for k in range(loop.steps)]


def places_of(case, loop, examples):
    """Which support examples each step sees; None: all of them."""
    if (
        loop.places == "all"
        or not isinstance(case.method, Reptile)
        or case.method.inner_batch is None
    ):
        return [slice(None)] * loop.steps
    batches = case.method.mini_batches(examples)
    return [batches[k % len(batches)] for k in range(loop.steps)]


def descend(case, loop):
    """The inner loop of all tasks."""
    net = (
        case.net
        if not loop.kernels
        else case.net.with_kernels(WRONG[loop.kernels](case.net.kernels))
    )
    x, y = data(case, loop.support)
    phi, rates = rates_of(case, loop)
    places = places_of(case, loop, x.shape[1])
    if not loop.carry:
        return inner(net, phi, rates, x, y, places, loop)[0]
    runs, state = [], None
    for t in range(len(x)):  # the state of task t's optimiser is where task t + 1 begins
        run, state = inner(net, phi, rates, x[t : t + 1], y[t : t + 1], places, loop, state)
        runs.append(run)
    phis = [np.concatenate([run.phis[k] for run in runs]) for k in range(loop.steps + 1)]
    return Run(net, phis, [], [], [], rates)


def inner(net, phi, rates, x, y, places, loop, state=None):
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


# ---- backward --------------------------------------------------------------------------------------------------------


def loss_weights(case, loop):
    """w_0 .. w_K."""
    K = loop.steps
    if loop.weights == "method" and isinstance(case.method, MAMLPlusPlus):
        given = case.method.loss_weights or (1 / case.method.inner_steps,) * case.method.inner_steps
        return (0.0, *given[:K], *(given[-1:] * (K - len(given))))
    shares = {
        "start": (1.0,) + (0.0,) * K,
        "after": (0.0,) + (1 / max(K, 1),) * K,
        "all": (1 / (K + 1),) * (K + 1),
    }
    return shares.get(loop.weights, (0.0,) * K + (1.0,))


def query_gradients(case, loop, run):
    """w_k grad g(phi_k) for each k, or None where w_k = 0."""
    x, y = data(case, loop.query)
    net = case.net
    if loop.query_kernels == "support statistics":
        net = support_statistics(
            net, np.broadcast_to(run.phis[-2], (len(x), net.num_params)), data(case, "support")[0]
        )
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
        through = flowing(loop, run, k, dg)
        kept, start = (lam, start) if loop.base != "start" else (zero, start + lam)
        kept, start = (kept + through, start) if loop.base != "once" else (kept, start + through)
        lam = kept + (0 if injected[k] is None else injected[k])
    return assembled(case, loop, lam + start, direct, of_rates[::-1])


def flowing(loop, run, k, dg):
    """c_k H dg: what flows back through the gradient of step k."""
    seen = loop.back is None or k >= loop.steps - loop.back
    factor = loop.curvature if seen else 0.0
    if factor == 0:
        return loop.decay * dg
    return factor * getattr(run.net, loop.product)(run.primals[k], dg) + loop.decay * dg


def assembled(case, loop, lam, direct, of_rates):
    """The rows (T, M) of the method from lam_0 and each dM/dA_k."""
    method, net = case.method, case.net
    if not isinstance(method, ERM) and not loop.mixed:
        lam = np.where(method.adapting(net, case.theta) > 0, lam, direct)
    if isinstance(method, CAVIA):
        return lam * (1 - method.adapting(net, case.theta))
    if not isinstance(method, (MetaSGD, MAMLPlusPlus)):
        return lam
    keep = {
        "negative": [-1] * loop.steps,
        "zero": [0] * loop.steps,
        "first": [1] + [0] * (loop.steps - 1),
        "last": [0] * (loop.steps - 1) + [1],
    }.get(loop.rates, [1] * loop.steps)
    of_rates = [c * dA for c, dA in zip(keep, of_rates, strict=True)]
    if isinstance(method, MetaSGD):
        return np.concatenate([lam, method.adapting(net, case.theta) * sum(of_rates)], axis=1)
    full = (of_rates + [np.zeros_like(lam)] * method.inner_steps)[: method.inner_steps]
    return np.concatenate([lam, *map(partial(method.per_layer, net), full)], axis=1)


def reptile_rows(case, loop, run):
    """theta - phi_K of each task, or what is mistaken for it."""
    theta, phi = case.theta, run.phis[-1]
    if loop.direction == "query":
        x, y = data(case, loop.query)
        return case.net.gradient(phi, x, y)
    return {"displacement": theta - phi, "blend": 2 * theta - phi, "adapted": phi}[loop.direction]


# ---- updates after every task ----------------------------------------------------------------------------------------


def sequential(case, loop, beta):
    """(1/T) sum_t G_t(theta_{t-1}) with theta_t = theta_{t-1} - beta G_t(theta_{t-1}): an outer step after every task."""
    total, meta = np.zeros_like(case.meta), case.meta
    for t in range(len(case.batch)):
        b = case.batch[t : t + 1]
        one = task_rows(
            case.with_(meta=meta, batch=Batch(b.x_support, b.y_support, b.x_query, b.y_query)), loop
        )[0]
        total, meta = total + one, meta - beta * one
    return total / len(case.batch)
