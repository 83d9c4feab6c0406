"""Right meta-gradients of every method, by hand in NumPy, independent of the doctor."""

import numpy as np

import refmaml as rm

K = 3
MAML, ANIL, FOMAML = rm.MAML(0.1, K), rm.ANIL(0.1, K), rm.FirstOrderMAML(0.1, K)
META_SGD, MAMLPP, CAVIA = rm.MetaSGD(0.1, K), rm.MAMLPlusPlus(0.1, K), rm.CAVIA(0.1, K)
REPTILE, REPTILE_ADAM, IMAML = (
    rm.Reptile(0.1, K),
    rm.Reptile(0.05, K, optimizer="adam", inner_batch=4),
    rm.IMAML(2.0),
)


# ---- arithmetic on {name: array} -----------------------------------------------------


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


# ---- right: the recursion of MAML, ANIL, first-order MAML ----------------------------


def flat(problem, params):
    """The parameters of the net as refmaml's flat vector (P,)."""
    return np.concatenate([params[name].ravel() for name in problem.net.shapes])


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
    phis = descend(
        problem, params, xs, ys, A, problem.method.inner_steps if steps is None else steps
    )
    q = problem.gradient(phis[query_at], xq, yq)
    return back(problem, phis, xs, ys, A, q, (0.0 if first else 1.0) if h is None else h)


def maml(problem, params, batch, **plant):
    """MAML, ANIL, first-order MAML and FO-ANIL."""
    return average([one_task(problem, params, *task, **plant) for task in tasks(batch)])


def planted(**plant):
    return lambda problem, params, batch: maml(problem, params, batch, **plant)


# ---- right: the other methods --------------------------------------------------------


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
    return average(
        [
            plus(-1, steps_of_reptile(problem, params, xs, ys)[0], params)
            for xs, ys, _, _ in tasks(batch)
        ]
    )


def proximal(problem, params, x, y, strength, prox=True):
    phi = params
    for _ in range(problem.method.inner_steps):
        g = problem.gradient(phi, x, y)
        pull = {n: strength * (phi[n] - params[n]) for n in phi}
        phi = plus(-problem.method.inner_lr, plus(1, pull, g) if prox else g, phi)
    return phi


def cg(product, b, iterations, old=False, c=1.0):
    """Conjugate gradients.

    old  directions from the old residual
    c    steps are longer by 1 / c
    """
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
    """iMAML.

    inner   a factor on lambda in the inner problem
    system  (v, Hv, lambda) -> the matrix times v
    solve   (product, b) -> the solution
    """
    lam, rows = problem.method.regularization, []
    system = system or (lambda v, Hv, lam: plus(1 / lam, Hv, v))
    solve = solve or (lambda product, b: cg(product, b, problem.method.cg_steps))
    for xs, ys, xq, yq in tasks(batch):
        phi = proximal(problem, params, xs, ys, inner * lam, prox)
        rows.append(
            solve(
                lambda v, phi=phi, xs=xs, ys=ys: system(v, problem.hvp(phi, xs, ys, v), lam),
                problem.gradient(phi, xq, yq),
            )
        )
    return average(rows)


RIGHT = [
    (maml, MAML),
    (maml, FOMAML),
    (maml, ANIL),
    (maml, rm.FirstOrderANIL(0.1, K)),
    (maml, rm.MAML(0.1, 1)),
    (erm, rm.ERM()),
    (meta_sgd, META_SGD),
    (maml_plus_plus, MAMLPP),
    (cavia, CAVIA),
    (reptile, REPTILE),
    (reptile, REPTILE_ADAM),
    (imaml, IMAML),
]
