"""Wrong meta-gradients of MAML in NumPy, one for each known mistake."""

import numpy as np
from implementations import (
    adapting,
    average,
    back,
    descend,
    dot,
    maml,
    one_task,
    plus,
    tasks,
    times,
)


def on_sets(support, query):
    """The sets, by the index of their inputs, that stand for support and query set."""
    return lambda problem, params, batch: average(
        [
            one_task(problem, params, *task[support : support + 2], *task[query : query + 2])
            for task in tasks(batch)
        ]
    )


def on_both(problem, params, batch):
    return average(
        [
            one_task(problem, params, np.concatenate([xs, xq]), np.concatenate([ys, yq]), xq, yq)
            for xs, ys, xq, yq in tasks(batch)
        ]
    )


def of_task(t, h=1.0, scale=None):
    def function(problem, params, batch):
        return times(
            scale or 1 / len(batch.x_support), one_task(problem, params, *tasks(batch)[t], h=h)
        )

    return function


def in_turn(problem, params, batch, beta=0.05):
    rows, theta = [], params
    for task in tasks(batch):
        rows.append(one_task(problem, theta, *task))
        theta = plus(-beta, rows[-1], theta)
    return average(rows)


def scaled(scale, fn=maml):
    """scale: a number, or a function of (problem, batch)."""
    return lambda problem, params, batch: times(
        scale(problem, batch) if callable(scale) else scale, fn(problem, params, batch)
    )


def inner_scale(scale):
    return lambda problem, params, batch: maml(problem, params, batch, factor=scale(problem, batch))


def accumulating(problem, params, batch):
    rows, A = [], adapting(problem, params)
    for xs, ys, xq, yq in tasks(batch):
        phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            lam = plus(
                -1,
                problem.hvp(phi, xs, ys, times(A, lam)),
                plus(1, problem.gradient(phi, xs, ys), lam),
            )
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
    def function(problem, params, batch):
        A, rows = adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            rows.append(
                back(problem, phis[-last - 1 :], xs, ys, A, problem.gradient(phis[-1], xq, yq))
            )
        return average(rows)

    return function


def every_step(weights):
    """A query loss after each step, phi_0's included, with weights (K + 1,)."""

    def function(problem, params, batch):
        A, rows = adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            lam = times(weights[-1], problem.gradient(phis[-1], xq, yq))
            for phi, w in zip(phis[-2::-1], weights[-2::-1], strict=True):
                lam = plus(
                    w,
                    problem.gradient(phi, xq, yq),
                    plus(-1, problem.hvp(phi, xs, ys, times(A, lam)), lam),
                )
            rows.append(lam)
        return average(rows)

    return function


def clipped_inside(limit, exact):
    def function(problem, params, batch):
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

    return function


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
            phi = {
                n: p
                - problem.method.inner_lr
                * m[n]
                / (1 - 0.9**k)
                / (np.sqrt(v[n] / (1 - 0.999**k)) + 1e-8)
                for n, p in phi.items()
            }
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

    def function(problem, params, batch):
        A = {n: problem.method.inner_lr * of_name(n) for n in params}
        rows = []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            rows.append(back(problem, phis, xs, ys, A, problem.gradient(phis[-1], xq, yq)))
        return average(rows)

    return function


def other_product(product):
    """product(net, primal, v) -> what stands for H v."""

    def function(problem, params, batch):
        net, A, rows = problem.net, adapting(problem, params), []
        for xs, ys, xq, yq in tasks(batch):
            phis = descend(problem, params, xs, ys, A, problem.method.inner_steps)
            lam = problem.gradient(phis[-1], xq, yq)
            for phi in phis[-2::-1]:
                primal = net.primal(net.flat(phi)[None], xs[None], ys[None])
                lam = plus(
                    -1, net.named(product(net, primal, net.flat(times(A, lam))[None])[0]), lam
                )
            rows.append(lam)
        return average(rows)

    return function


def softmax_constant(net, primal, v):
    """The second derivative with p a constant: R-passes on the net alone."""
    rz, rsaved = net.r_forward(primal, v)
    return net.r_backward(primal, v, rsaved, np.zeros_like(rz))


def pooling_lost(net, primal, v):
    """Max-pooling whose tangent is 0, as TensorFlow's second derivative once was."""

    def gather(ry, *arguments):
        ry[...] = 0

    return net.with_kernels(net.kernels.replace(max_pool2d_gather=gather)).hvp(primal, v)


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
