"""Meta-gradients by the complex step, exact to rounding, of inner loops that are
written forward only: dM/dtheta_i = Im M(theta + ih e_i) / h. A detached value is its
real part.
"""

from math import cos, pi

import numpy as np
from implementations import dot, plus, tasks, times

TINY = 1e-30


def meta_gradient(objective):
    """fn(problem, params, batch) -> gradient of objective(problem, params, batch)."""

    def fn(problem, params, batch):
        out = {n: np.zeros(p.shape) for n, p in params.items()}
        for name, p in params.items():
            for i in range(p.size):
                moved = p.astype(complex)
                moved.flat[i] += TINY * 1j
                out[name].flat[i] = objective(problem, {**params, name: moved}, batch).imag / TINY
        return out

    return fn


def detached(named):
    """The same numbers without what they depend on."""
    return {n: a.real for n, a in named.items()}


def descend(problem, theta, xs, ys, step, state=None):
    """(phi_K, state) of the inner loop: step(phi, g, state, k, alpha) -> phi, state."""
    phi = theta
    for k in range(problem.method.inner_steps):
        g = problem.gradient(phi, xs, ys)
        phi, state = step(phi, g, state, k, problem.method.inner_lr)
    return phi, state


def maml(step, first_order=False):
    """MAML with an inner update of its own."""

    def objective(problem, theta, batch):
        losses = []
        for xs, ys, xq, yq in tasks(batch):
            phi, _ = descend(problem, theta, xs, ys, step)
            if first_order:
                phi = {n: theta[n] + (phi[n] - theta[n]).real for n in theta}
            losses.append(problem.loss(phi, xq, yq))
        return sum(losses) / len(losses)

    return meta_gradient(objective)


# ---- inner updates -------------------------------------------------------------------


def rate(c):
    return lambda phi, g, s, k, a: (plus(-c * a, g, phi), s)


def momentum(mu, decay=0.0, nesterov=False, detach=False, average=False):
    def step(phi, g, m, k, a):
        g = plus(decay, phi, g)
        before = times(0, g) if m is None else (detached(m) if detach else m)
        m = plus(mu, before, times(1 - mu if average else 1, g))
        return plus(-a, plus(mu, m, g) if nesterov else m, phi), m

    return step


def decay(d, detach=False, own=False):
    """Weight decay; own: phi shrinks by d itself, whatever the step size."""

    def step(phi, g, s, k, a):
        pulled = detached(phi) if detach else phi
        return plus(-d if own else -a * d, pulled, plus(-a, g, phi)), s

    return step


def anchored(strength, theta):
    return lambda phi, g, s, k, a: (plus(-a, plus(strength, plus(-1, theta, phi), g), phi), s)


def adam(
    b1=0.9, b2=0.999, eps=1e-8, root=0.0, early=False, decay=0.0, decoupled=False,
    correction=True, detach="",
):  # fmt: skip
    """Adam; early: the root's eps before the bias correction; detach: "m and v",
    "v".
    """

    def step(phi, g, s, k, a):
        m, v = s or (times(0, g), times(0, g))
        h = g if decoupled else plus(decay, phi, g)
        if detach == "m and v":
            m, v = detached(m), detached(v)
        of_root = detached(h) if detach == "v" else h
        m = {n: b1 * m[n] + (1 - b1) * h[n] for n in h}
        v = {n: b2 * v[n] + (1 - b2) * of_root[n] ** 2 for n in h}
        c1, c2 = (1 - b1 ** (k + 1), 1 - b2 ** (k + 1)) if correction else (1, 1)
        inside = {n: (v[n] + root) / c2 if early else v[n] / c2 + root for n in v}
        d = {n: m[n] / c1 / (np.sqrt(inside[n]) + eps) for n in m}
        return plus(-a, plus(decay if decoupled else 0, phi, d), phi), (m, v)

    return step


def rmsprop(alpha=0.9, eps=1e-4):
    def step(phi, g, v, k, a):
        v = {n: alpha * (0 if v is None else v[n]) + (1 - alpha) * g[n] ** 2 for n in g}
        return plus(-a, {n: g[n] / (np.sqrt(v[n]) + eps) for n in g}, phi), v

    return step


def clipped(limit, eps=0.0, detach=False, per_tensor=False):
    def step(phi, g, s, k, a):
        parts = [{n: g[n]} for n in g] if per_tensor else [g]
        out = {}
        for part in parts:
            size = np.sqrt(dot(part, part))
            size = size.real if detach else size
            out |= times(limit / (size + eps) if size.real + eps > limit else 1.0, part)
        return plus(-a, out, phi), s

    return step


def entries(limit):
    def step(phi, g, s, k, a):
        cut = {n: np.where(abs(x.real) > limit, limit * np.sign(x.real), x) for n, x in g.items()}
        return plus(-a, cut, phi), s

    return step


def cosine(phi, g, s, k, a, K=3):
    return plus(-a * 0.5 * (1 + cos(pi * k / K)), g, phi), s


def hessian(problem, phi, xs, ys, c):
    """A gradient whose derivative counts c times: g.real + c (g - g.real)."""
    g = problem.gradient(phi, xs, ys)
    return {n: a.real + c * 1j * a.imag for n, a in g.items()}


# ---- objectives ----------------------------------------------------------------------


def proximal(strength):
    def objective(problem, theta, batch):
        losses = []
        for xs, ys, xq, yq in tasks(batch):
            phi, _ = descend(problem, theta, xs, ys, anchored(strength, theta))
            losses.append(problem.loss(phi, xq, yq))
        return sum(losses) / len(losses)

    return meta_gradient(objective)


def weighted(problem, theta, batch):
    losses = []
    for xs, ys, xq, yq in tasks(batch):
        phi, _ = descend(problem, theta, xs, ys, rate(1))
        losses.append(problem.loss(phi, xq, yq))
    w = np.arange(1, len(losses) + 1)
    return (np.array(losses) * w).sum() / w.sum()


def chained(through):
    """Fast weights that are not reset between tasks."""

    def objective(problem, theta, batch):
        phi, losses = theta, []
        for xs, ys, xq, yq in tasks(batch):
            phi, _ = descend(problem, phi, xs, ys, rate(1))
            losses.append(problem.loss(phi, xq, yq))
            if not through:  # the next task begins with numbers, differentiated afresh
                phi = {n: theta[n] + (phi[n] - theta[n]).real for n in theta}
        return sum(losses) / len(losses)

    return meta_gradient(objective)


def lazy(problem, theta, batch):
    """K steps without derivatives, then the whole leap as one step's Jacobian."""
    losses, K, a = [], problem.method.inner_steps, problem.method.inner_lr
    for xs, ys, xq, yq in tasks(batch):
        end, _ = descend(problem, detached(theta), xs, ys, rate(1))
        one = plus(-K * a, problem.gradient(theta, xs, ys), theta)
        phi = {n: end[n] + 1j * one[n].imag for n in one}
        losses.append(problem.loss(phi, xq, yq))
    return sum(losses) / len(losses)


def every_second_example(k, examples):
    return np.arange(k % examples, examples, 2)


def mini_batches(problem, theta, batch):
    losses = []
    for xs, ys, xq, yq in tasks(batch):
        phi = theta
        for k in range(problem.method.inner_steps):
            i = every_second_example(k, len(xs))
            phi = plus(-problem.method.inner_lr, problem.gradient(phi, xs[i], ys[i]), phi)
        losses.append(problem.loss(phi, xq, yq))
    return sum(losses) / len(losses)


def hessian_times(c):
    def objective(problem, theta, batch):
        losses = []
        for xs, ys, xq, yq in tasks(batch):
            phi = theta
            for _ in range(problem.method.inner_steps):
                g = hessian(problem, phi, xs, ys, c)
                phi = plus(-problem.method.inner_lr, g, phi)
            losses.append(problem.loss(phi, xq, yq))
        return sum(losses) / len(losses)

    return meta_gradient(objective)


def own_step_size(a):
    return maml(lambda phi, g, s, k, _: (plus(-a, g, phi), s))
