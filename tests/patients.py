"""Meta-gradients written by hand in NumPy on named arrays, right ones and one for each known mistake: what the doctor's tests bring before it.

Nothing here is shared with refmaml.doctor: each function is what somebody might have written.
"""
from typing import Any, NamedTuple

import numpy as np

import refmaml as rm

K = 3
MAML, ANIL, FOMAML = rm.MAML(0.1, K), rm.ANIL(0.1, K), rm.FirstOrderMAML(0.1, K)
META_SGD, MAMLPP, CAVIA = rm.MetaSGD(0.1, K), rm.MAMLPlusPlus(0.1, K), rm.CAVIA(0.1, K)
REPTILE, REPTILE_ADAM, IMAML = rm.Reptile(0.1, K), rm.Reptile(0.05, K, optimizer="adam", inner_batch=4), rm.IMAML(2.0)


# ---- arithmetic on {name: array} -------------------------------------------------------------------------------------------------

def plus(a, x, y):
    """y + a x."""
    return {n: y[n] + a * x[n] for n in y}


def times(A, x):
    """A x, A by name or a number."""
    return {n: (A[n] if isinstance(A, dict) else A) * x[n] for n in x}


def dot(a, b):
    return sum((a[n] * b[n]).sum() for n in a)


def average(rows):
    return {n: sum(r[n] for r in rows) / len(rows) for n in rows[0]}


def tasks(batch):
    return list(zip(*batch, strict=True))


# ---- right: the recursion of MAML, ANIL, first-order MAML ---------------------------------------------------------------------------

def adapting(problem, params):
    """alpha on what adapts, 0 elsewhere, by name."""
    mask = problem.net.named(problem.net.mask(problem.method.adapts).astype(float))
    return {n: problem.method.inner_lr * mask[n] for n in mask}


def descend(problem, params, x, y, A, steps):
    phis = [params]
    for _ in range(steps):
        phis.append(plus(-1, times(A, problem.gradient(phis[-1], x, y)), phis[-1]))
    return phis


def back(problem, phis, x, y, A, lam, h=1.0):
    for phi in phis[-2::-1]:
        lam = plus(-h, problem.hvp(phi, x, y, times(A, lam)), lam)
    return lam


def one_task(problem, params, xs, ys, xq, yq, steps=None, factor=1.0, h=None, query_at=-1):
    """A task's gradient; h: what the Hessian is multiplied with."""
    A = times(factor, adapting(problem, params))
    first = isinstance(problem.method, rm.FirstOrderMAML)
    phis = descend(problem, params, xs, ys, A, problem.method.inner_steps if steps is None else steps)
    q = problem.gradient(phis[query_at], xq, yq)
    return back(problem, phis, xs, ys, A, q, (0.0 if first else 1.0) if h is None else h)


def maml(problem, params, batch, **plant):
    """MAML, ANIL, first-order MAML and FO-ANIL."""
    return average([one_task(problem, params, *task, **plant) for task in tasks(batch)])


def planted(**plant):
    return lambda problem, params, batch: maml(problem, params, batch, **plant)


# ---- right: the other methods ---------------------------------------------------------------------------------------------------------

def erm(problem, params, batch):
    return average([problem.gradient(params, xq, yq) for _, _, xq, yq in tasks(batch)])


def meta_sgd(problem, params, batch, of_rates=None):
    """of_rates(g, lam, q): what of a step goes into the gradient of the step sizes."""
    of_rates = of_rates or (lambda g, lam, q: times(lam, times(-1, g)))
    names = list(problem.net.shapes)
    theta, A, rows = {n: params[n] for n in names}, {n: params[f"inner_lr.{n}"] for n in names}, []
    for xs, ys, xq, yq in tasks(batch):
        phis = descend(problem, theta, xs, ys, A, problem.method.inner_steps)
        lam = q = problem.gradient(phis[-1], xq, yq)
        dA = times(0, theta)
        for phi in phis[-2::-1]:
            dA = plus(1, of_rates(problem.gradient(phi, xs, ys), lam, q), dA)
            lam = plus(-1, problem.hvp(phi, xs, ys, times(A, lam)), lam)
        rows.append({**lam, **{f"inner_lr.{n}": dA[n] for n in names}})
    return average(rows)


def maml_plus_plus(problem, params, batch, weights=None):
    names, steps = list(problem.net.shapes), problem.method.inner_steps
    weights = weights or [1 / steps] * steps
    theta, rows = {n: params[n] for n in names}, []
    for xs, ys, xq, yq in tasks(batch):
        phis = [theta]
        for k in range(steps):
            g = problem.gradient(phis[-1], xs, ys)
            phis.append({n: p - params[f"inner_lr.{n}"][k] * g[n] for n, p in phis[-1].items()})
        lam, dA = times(0, theta), {n: np.zeros_like(params[f"inner_lr.{n}"]) for n in names}
        for k in range(steps - 1, -1, -1):
            lam = plus(weights[k], problem.gradient(phis[k + 1], xq, yq), lam)
            g, A = problem.gradient(phis[k], xs, ys), {n: params[f"inner_lr.{n}"][k] for n in names}
            for n in names:
                dA[n][k] = -(g[n] * lam[n]).sum()
            lam = plus(-1, problem.hvp(phis[k], xs, ys, times(A, lam)), lam)
        rows.append({**lam, **{f"inner_lr.{n}": dA[n] for n in names}})
    return average(rows)


def cavia(problem, params, batch, mixed=True):
    A = adapting(problem, params)
    start, rows = {n: np.where(A[n] > 0, 0, p) for n, p in params.items()}, []
    for xs, ys, xq, yq in tasks(batch):
        phis = descend(problem, start, xs, ys, A, problem.method.inner_steps)
        q = problem.gradient(phis[-1], xq, yq)
        lam = back(problem, phis, xs, ys, A, q) if mixed else q
        rows.append({n: g for n, g in lam.items() if not n.endswith("context")})
    return average(rows)


def steps_of_reptile(problem, params, x, y, v=None):
    """phi_K, and Adam's second moment there."""
    m, phi = problem.method, params
    v = v or times(0, params)
    for k, places in enumerate(m.mini_batches(len(x))):
        g = problem.gradient(phi, x[places], y[places])
        if m.optimizer == "adam":
            v = {n: m.beta2 * v[n] + (1 - m.beta2) * g[n] ** 2 for n in g}
            g = {n: g[n] / (np.sqrt(v[n] / (1 - m.beta2 ** (k + 1))) + m.eps) for n in g}
        phi = plus(-m.inner_lr, g, phi)
    return phi, v


def reptile(problem, params, batch):
    return average([plus(-1, steps_of_reptile(problem, params, xs, ys)[0], params) for xs, ys, _, _ in tasks(batch)])


def proximal(problem, params, x, y, strength, prox=True):
    phi = params
    for _ in range(problem.method.inner_steps):
        g = problem.gradient(phi, x, y)
        pull = {n: strength * (phi[n] - params[n]) for n in phi}
        phi = plus(-problem.method.inner_lr, plus(1, pull, g) if prox else g, phi)
    return phi


def cg(product, b, iterations, old=False, c=1.0):
    """Conjugate gradients; old: directions from the old residual; c: steps 1 / c too long."""
    x, r, p = times(0, b), b, b
    for _ in range(iterations):
        if dot(r, r) < 1e-32 * dot(b, b):
            break
        Ap, rr = product(p), dot(r, r)
        a = rr / (c * dot(p, Ap))
        x, before, r = plus(a, p, x), r, plus(-a, Ap, r)
        p = plus(dot(r, r) / rr, p, before if old else r)
    return x


def imaml(problem, params, batch, inner=1.0, prox=True, system=None, solve=None):
    """system(v, Hv, lambda): the matrix times v; inner: a factor on lambda in the inner problem; solve(product, b, method)."""
    lam, rows = problem.method.regularization, []
    system = system or (lambda v, Hv, lam: plus(1 / lam, Hv, v))
    solve = solve or (lambda product, b: cg(product, b, problem.method.cg_steps))
    for xs, ys, xq, yq in tasks(batch):
        phi = proximal(problem, params, xs, ys, inner * lam, prox)
        rows.append(solve(lambda v, phi=phi, xs=xs, ys=ys: system(v, problem.hvp(phi, xs, ys, v), lam), problem.gradient(phi, xq, yq)))
    return average(rows)


RIGHT = [(maml, MAML), (maml, FOMAML), (maml, ANIL), (maml, rm.FirstOrderANIL(0.1, K)), (maml, rm.MAML(0.1, 1)), (erm, rm.ERM()),
         (meta_sgd, META_SGD), (maml_plus_plus, MAMLPP), (cavia, CAVIA), (reptile, REPTILE), (reptile, REPTILE_ADAM), (imaml, IMAML)]


# ---- wrong: MAML -----------------------------------------------------------------------------------------------------------------------

def on_sets(support, query):
    """Roles exchanged: indices of the sets that stand for (x_support, y_support) and (x_query, y_query)."""
    return lambda problem, params, batch: average([
        one_task(problem, params, *task[support:support + 2], *task[query:query + 2]) for task in tasks(batch)])


def on_both(problem, params, batch):
    return average([one_task(problem, params, np.concatenate([xs, xq]), np.concatenate([ys, yq]), xq, yq)
                    for xs, ys, xq, yq in tasks(batch)])


def of_task(t, h=1.0, scale=None):
    def patient(problem, params, batch):
        return times(scale or 1 / len(batch.x_support), one_task(problem, params, *tasks(batch)[t], h=h))
    return patient


def in_turn(problem, params, batch, beta=0.05):
    rows, theta = [], params
    for task in tasks(batch):
        rows.append(one_task(problem, theta, *task))
        theta = plus(-beta, rows[-1], theta)
    return average(rows)


def scaled(scale, fn=maml):
    """scale: a number, or a function of (problem, batch)."""
    return lambda problem, params, batch: times(scale(problem, batch) if callable(scale) else scale, fn(problem, params, batch))


def inner_scale(scale):
    return lambda problem, params, batch: maml(problem, params, batch, factor=scale(problem, batch))


def accumulating(problem, params, batch):
    rows, A = [], adapting(problem, params)
    for xs, ys, xq, yq in tasks(batch):
        phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            lam = plus(-1, problem.hvp(phi, xs, ys, times(A, lam)), plus(1, problem.gradient(phi, xs, ys), lam))
        rows.append(lam)
    return average(rows)


def gradient_at_start(problem, params, batch):
    rows, a, k = [], problem.method.inner_lr, problem.method.inner_steps
    for xs, ys, xq, yq in tasks(batch):
        phi = plus(-a * k, problem.gradient(params, xs, ys), params)
        q = problem.gradient(phi, xq, yq)
        rows.append(plus(-a * k, problem.hvp(params, xs, ys, q), q))
    return average(rows)


def step_from_start(problem, params, batch):
    rows, a = [], problem.method.inner_lr
    for xs, ys, xq, yq in tasks(batch):
        phis = [params]
        for _ in range(problem.method.inner_steps):
            phis.append(plus(-a, problem.gradient(phis[-1], xs, ys), params))
        u = problem.gradient(phis[-1], xq, yq)
        lam = u
        for phi in phis[-2::-1]:
            u = times(-a, problem.hvp(phi, xs, ys, u))
            lam = plus(1, u, lam)
        rows.append(lam)
    return average(rows)


def truncated(last):
    def patient(problem, params, batch):
        A, rows = adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            rows.append(back(problem, phis[-last - 1:], xs, ys, A, problem.gradient(phis[-1], xq, yq)))
        return average(rows)
    return patient


def every_step(weights):
    """A query loss after each step, phi_0's included, with weights (K + 1,)."""
    def patient(problem, params, batch):
        A, rows = adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            lam = times(weights[-1], problem.gradient(phis[-1], xq, yq))
            for phi, w in zip(phis[-2::-1], weights[-2::-1], strict=True):
                lam = plus(w, problem.gradient(phi, xq, yq), plus(-1, problem.hvp(phi, xs, ys, times(A, lam)), lam))
            rows.append(lam)
        return average(rows)
    return patient


def clipped_inside(limit, exact):
    def patient(problem, params, batch):
        a, rows = problem.method.inner_lr, []
        for xs, ys, xq, yq in tasks(batch):
            phi, seen = params, []
            for _ in range(problem.method.inner_steps):
                g = problem.gradient(phi, xs, ys)
                size = np.sqrt(dot(g, g))
                seen.append((phi, times(1 / size, g), min(1, limit / size)))
                phi = plus(-a * seen[-1][2], g, phi)
            lam = problem.gradient(phi, xq, yq)
            for at, u, factor in seen[::-1]:
                inside = plus(-dot(u, lam), u, lam) if exact and factor < 1 else lam
                lam = plus(-a * factor, problem.hvp(at, xs, ys, inside), lam)
            rows.append(lam)
        return average(rows)
    return patient


def entries_clipped(problem, params, batch, c=0.1):
    a, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in tasks(batch):
        phis = [params]
        for _ in range(problem.method.inner_steps):
            g = problem.gradient(phis[-1], xs, ys)
            phis.append({n: p - a * np.clip(g[n], -c, c) for n, p in phis[-1].items()})
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            open_ = {n: np.abs(g) <= c for n, g in problem.gradient(phi, xs, ys).items()}
            lam = plus(-a, problem.hvp(phi, xs, ys, times(open_, lam)), lam)
        rows.append(lam)
    return average(rows)


def momentum(problem, params, batch, beta=0.9, first=False):
    a, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in tasks(batch):
        phis, m = [params], times(0, params)
        for _ in range(problem.method.inner_steps):
            m = plus(beta, m, problem.gradient(phis[-1], xs, ys))
            phis.append(plus(-a, m, phis[-1]))
        lam, dm = problem.gradient(phis[-1], xq, yq), times(0, params)
        for phi in phis[-2::-1] if not first else []:
            dm = plus(-a, lam, times(beta, dm))
            lam = plus(1, problem.hvp(phi, xs, ys, dm), lam)
        rows.append(lam)
    return average(rows)


def adam_first_order(problem, params, batch):
    rows = []
    for xs, ys, xq, yq in tasks(batch):
        phi, m, v = params, times(0, params), times(0, params)
        for k in range(1, problem.method.inner_steps + 1):
            g = problem.gradient(phi, xs, ys)
            m, v = plus(0.1, g, times(0.9, m)), {n: 0.999 * v[n] + 0.001 * g[n] ** 2 for n in v}
            phi = {n: p - problem.method.inner_lr * m[n] / (1 - 0.9 ** k) / (np.sqrt(v[n] / (1 - 0.999 ** k)) + 1e-8)
                   for n, p in phi.items()}
        rows.append(problem.gradient(phi, xq, yq))
    return average(rows)


def decayed(problem, params, batch, d=0.01):
    a, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in tasks(batch):
        phis = [params]
        for _ in range(problem.method.inner_steps):
            phis.append(plus(-a, plus(d, phis[-1], problem.gradient(phis[-1], xs, ys)), phis[-1]))
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            lam = plus(-a, plus(d, lam, problem.hvp(phi, xs, ys, lam)), lam)
        rows.append(lam)
    return average(rows)


def step_sizes(of_name):
    """of_name(name): a factor on the step size of an array."""
    def patient(problem, params, batch):
        A = {n: problem.method.inner_lr * of_name(n) for n in params}
        rows = []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            rows.append(back(problem, phis, xs, ys, A, problem.gradient(phis[-1], xq, yq)))
        return average(rows)
    return patient


def other_product(product):
    """product(net, primal, v) -> what stands for H v."""
    def patient(problem, params, batch):
        net, A, rows = problem.net, adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            lam = problem.gradient(phis[-1], xq, yq)
            for phi in phis[-2::-1]:
                primal = net.primal(net.flat(phi)[None], xs[None], ys[None])
                lam = plus(-1, net.named(product(net, primal, net.flat(times(A, lam))[None])[0]), lam)
            rows.append(lam)
        return average(rows)
    return patient


def softmax_constant(net, primal, v):
    """The second derivative with p a constant: R-passes on the net alone."""
    rz, rsaved = net.r_forward(primal, v)
    return net.r_backward(primal, v, rsaved, np.zeros_like(rz))


def part_zero(problem, params, batch):
    out = maml(problem, params, batch)
    return out | {"2.weight": None} if "2.weight" in out else out


def alphabetical(problem, params, batch):
    out = maml(problem, params, batch)
    return np.concatenate([out[n].ravel() for n in sorted(out)])


def entries_cut(problem, params, batch, c=0.004):
    return {n: np.clip(g, -c, c) for n, g in maml(problem, params, batch).items()}


def norm_cut(problem, params, batch, c=0.003):
    out = maml(problem, params, batch)
    return times(c / np.sqrt(dot(out, out)), out)


# ---- wrong: the others --------------------------------------------------------------------------------------------------------------------

def direct_body(problem, params, batch):
    """ANIL whose body gets the query gradient alone."""
    right = maml(problem, params, batch)
    direct, A = maml(problem, params, batch, h=0.0), adapting(problem, params)
    return {n: right[n] if A[n].any() else direct[n] for n in right}


def everything_adapts(problem, params, batch):
    return step_sizes(lambda n: 1.0)(problem, params, batch)


def reptile_of(combine):
    """combine(theta, phi, problem) by task."""
    return lambda problem, params, batch: average([
        combine(params, steps_of_reptile(problem, params, xs, ys)[0], problem) for xs, ys, _, _ in tasks(batch)])


def leaking(problem, params, batch):
    """Adam's second moment carried over; its bias correction starts anew."""
    v, k, rows, m = times(0, params), 0, [], problem.method
    for xs, ys, _, _ in tasks(batch):
        phi = params
        for places in m.mini_batches(len(xs)):
            k += 1
            g = problem.gradient(phi, xs[places], ys[places])
            v = {n: m.beta2 * v[n] + (1 - m.beta2) * g[n] ** 2 for n in g}
            phi = {n: p - m.inner_lr * g[n] / (np.sqrt(v[n] / (1 - m.beta2 ** k)) + m.eps) for n, p in phi.items()}
        rows.append(plus(-1, phi, params))
    return average(rows)


def one_step_reptile(problem, params, batch):
    return average([times(problem.method.inner_lr, problem.gradient(params, xs, ys)) for xs, ys, _, _ in tasks(batch)])


def whole_set(problem, params, batch):
    rows, m = [], problem.method
    for xs, ys, _, _ in tasks(batch):
        phi, v = params, times(0, params)
        for k in range(m.inner_steps):
            g = problem.gradient(phi, xs, ys)
            v = {n: m.beta2 * v[n] + (1 - m.beta2) * g[n] ** 2 for n in g}
            phi = {n: p - m.inner_lr * g[n] / (np.sqrt(v[n] / (1 - m.beta2 ** (k + 1))) + m.eps) for n, p in phi.items()}
        rows.append(plus(-1, phi, params))
    return average(rows)


def implicit(**plant):
    return lambda problem, params, batch: imaml(problem, params, batch, **plant)


def stopped(m, **bug):
    return implicit(solve=lambda product, b: cg(product, b, m, **bug))


SMOOTH, FLAT = ("quadratic", "mlp"), ("quadratic", "two-layer")


class Patient(NamedTuple):
    """row of the dictionary; words the diagnosis must have; the function; its method; the probes it is tried on."""
    row: str
    words: str
    fn: Any
    method: Any = MAML
    probes: tuple = SMOOTH


def zeros(problem, params, batch):
    return {n: np.zeros_like(p) for n, p in params.items()}


def nones(problem, params, batch):
    return dict.fromkeys(params)


PATIENTS = {
    "first-order": Patient("1", "first-order", planted(h=0.0)),
    "hessian twice": Patient("1", "Hessian counts twice", planted(h=2.0)),
    "hessian half": Patient("1", "Hessian counts half", planted(h=0.5)),
    "hessian sign": Patient("1", "Hessian has the wrong sign", planted(h=-1.0)),
    "gauss-newton": Patient("1", "Gauss-Newton", other_product(lambda net, p, v: net.gauss_newton_product(p, v))),
    "second-order": Patient("1", "second-order, where first-order", planted(h=1.0), FOMAML),
    "zeros": Patient("2", "graph is cut", zeros),
    "nones": Patient("3", "None for every parameter", nones),
    "unadapted": Patient("5", "unadapted parameters", planted(h=0.0, query_at=0)),
    "query is support": Patient("6", "query loss is measured on the support set", on_sets(0, 0)),
    "support is query": Patient("6", "adapts on the query set", on_sets(2, 2)),
    "both": Patient("6", "support and query together", on_both),
    "swapped": Patient("7", "swapped", on_sets(2, 0)),
    "first task": Patient("8", "only the first task", of_task(0)),
    "last task": Patient("8", "only the last task", of_task(-1)),
    "last task, undivided": Patient("8", "only the last task counts, times B", of_task(-1, scale=1)),
    "last task, first-order": Patient("1+8", "first-order", of_task(-1, h=0.0)),
    "in turn": Patient("9", "after every task", in_turn),
    "sum over tasks": Patient("10", "times B", scaled(lambda p, b: len(b.x_support))),
    "sum over queries": Patient("10", "times M", scaled(lambda p, b: b.x_query.shape[1])),
    "sum inside": Patient("11", "summed over the support examples", inner_scale(lambda p, b: b.x_support.shape[1])),
    "mean inside twice": Patient("11", "divided by the number of support examples", inner_scale(lambda p, b: 1 / b.x_support.shape[1])),
    "per shot": Patient("11", "summed over outputs", inner_scale(lambda p, b: p.net.output_shape(p.net.input_shape)[0])),
    "double step": Patient("11", "twice as large", inner_scale(lambda p, b: 2)),
    "climbs": Patient("11", "climbs", inner_scale(lambda p, b: -1)),
    "accumulated": Patient("12", "inner losses' own gradients", accumulating),
    "gradient at start": Patient("13", "takes the gradient at the initial", gradient_at_start),
    "step from start": Patient("13", "starts from the initial", step_from_start),
    "one step": Patient("13", "a single inner step", planted(steps=1)),
    "last step only": Patient("14", "only the last 1 of the inner steps", truncated(1)),
    "last two steps": Patient("14", "only the last 2 of the inner steps", truncated(2)),
    "averaged losses": Patient("15", "after every step are averaged", every_step([0, *[1 / K] * K])),
    "averaged from start": Patient("15", "before, between and after", every_step([1 / (K + 1)] * (K + 1))),
    "a step less": Patient("16", "one inner step too few", planted(steps=K - 1)),
    "a step more": Patient("16", "one inner step too many", planted(steps=K + 1)),
    "direct body": Patient("17", "lose their second-order term", direct_body, ANIL, ("two-layer", "mlp")),
    "everything adapts": Patient("17", "adapts every parameter", everything_adapts, ANIL, ("two-layer", "mlp")),
    "cavia direct": Patient("17", "", lambda *a: cavia(*a, mixed=False), CAVIA, ("two-layer", "mlp")),
    "rates first-order": Patient("18", "step sizes' gradient is first-order",
                                 lambda *a: meta_sgd(*a, of_rates=lambda g, lam, q: times(-1, times(q, g))), META_SGD),
    "rates sign": Patient("18", "step sizes' gradient has the wrong sign",
                          lambda *a: meta_sgd(*a, of_rates=lambda g, lam, q: times(lam, g)), META_SGD),
    "rates none": Patient("18", "step sizes have no gradient", lambda *a: meta_sgd(*a, of_rates=lambda g, lam, q: times(0, g)), META_SGD),
    "softmax constant": Patient("23", "softmax's probabilities", other_product(softmax_constant), probes=("mlp",)),
    "adam": Patient("24", "Adam in the inner loop", adam_first_order),
    "momentum": Patient("26", "momentum", momentum),
    "clipped, constant": Patient("26", "clipped to norm 0.1, the clipping not", clipped_inside(0.1, exact=False)),
    "clipped, exact": Patient("26", "clipped to norm 0.1", clipped_inside(0.1, exact=True)),
    "entries clipped": Patient("26", "entries are clipped to [-0.1", entries_clipped),
    "decayed": Patient("11", "weight decay 0.01", decayed),
    "entries cut": Patient("26", "meta-gradient's entries are clipped", entries_cut),
    "norm cut": Patient("26", "meta-gradient is clipped to norm", norm_cut),
    "thousandth": Patient("10", "times 1.001", scaled(1.001)),
    "ascent": Patient("10", "times -1", scaled(-1)),
    "biases skipped": Patient("41", "does not adapt every bias", step_sizes(lambda n: 0.0 if n.endswith("bias") else 1.0)),
    "head skipped": Patient("41", "does not adapt the head", step_sizes(lambda n: 0.0 if n[0] == "2" else 1.0), probes=("mlp",)),
    "updated twice": Patient("42", "updates 0.weight twice", step_sizes(lambda n: 2.0 if n == "0.weight" else 1.0), probes=("mlp",)),
    "one None": Patient("41", "2.weight", part_zero),
    "alphabetical": Patient("order", "alphabetical", alphabetical),
    "last loss only": Patient("15", "only the loss after the last step", lambda *a: maml_plus_plus(*a, weights=[0] * (K - 1) + [1]), MAMLPP),
    "reptile blend": Patient("38", "2 theta - phi_K", reptile_of(lambda t, p, _: plus(-1, p, times(2, t))), REPTILE),
    "reptile adapted": Patient("38", "adapted parameters themselves", reptile_of(lambda t, p, _: p), REPTILE),
    "reptile sign": Patient("38", "times -1", reptile_of(lambda t, p, _: plus(-1, t, p)), REPTILE),
    "reptile rate": Patient("38", "times 1/alpha", reptile_of(lambda t, p, m: times(1 / m.method.inner_lr, plus(-1, p, t))), REPTILE),
    "reptile one step": Patient("39", "a single inner step", one_step_reptile, REPTILE),
    "reptile fomaml": Patient("39", "first-order MAML", planted(h=0.0), REPTILE),
    "reptile leak": Patient("25", "carried from task to task", leaking, REPTILE_ADAM),
    "reptile whole set": Patient("39", "whole support set", whole_set, REPTILE_ADAM),
    "imaml first-order": Patient("1", "no linear system solved", implicit(system=lambda v, Hv, lam: v), IMAML, FLAT),
    "imaml no prox": Patient("27", "lacks its proximal term", implicit(prox=False), IMAML, FLAT),
    "imaml 2 lambda": Patient("28", "linear system has 2 lambda", implicit(system=lambda v, Hv, lam: plus(0.5 / lam, Hv, v)), IMAML, FLAT),
    "imaml half lambda": Patient("28", "linear system has lambda / 2", implicit(system=lambda v, Hv, lam: plus(2 / lam, Hv, v)), IMAML, FLAT),
    "imaml inner lambda": Patient("28", "inner problem has 2 lambda", implicit(inner=2.0), IMAML, FLAT),
    "imaml no lambda": Patient("29", "times 1/lambda", implicit(system=lambda v, Hv, lam: plus(lam, v, Hv)), IMAML, FLAT),
    "imaml sign": Patient("30", "wrong sign in the linear system", implicit(system=lambda v, Hv, lam: plus(-1 / lam, Hv, v)), IMAML, FLAT),
    "imaml damping": Patient("31", "damping", implicit(system=lambda v, Hv, lam: plus(1 / (lam + 10), Hv, times(2, v))), IMAML, FLAT),
    "imaml old residual": Patient("33", "old residual", stopped(3, old=True), IMAML, FLAT),
    "imaml long steps": Patient("34", "too long", stopped(3, c=0.5), IMAML, FLAT),
    "imaml stopped": Patient("35", "stops after 1 iteration", stopped(1), IMAML, FLAT),
    "imaml stopped at two": Patient("35", "stops after 2 iterations", stopped(2), IMAML, FLAT),
    "imaml anchor": Patient("36", "closure", zeros, IMAML, FLAT),
}
