"""Wrong meta-gradients of ANIL, Reptile and iMAML, written by hand in NumPy."""

import numpy as np
import wrong_implementations as wrong
from implementations import adapting, average, cg, imaml, maml, plus, steps_of_reptile, tasks, times


def direct_body(problem, params, batch):
    """ANIL whose body gets the query gradient alone."""
    right = maml(problem, params, batch)
    direct, A = maml(problem, params, batch, h=0.0), adapting(problem, params)
    return {n: right[n] if A[n].any() else direct[n] for n in right}


def everything_adapts(problem, params, batch):
    return wrong.step_sizes(lambda n: 1.0)(problem, params, batch)


def reptile_of(combine):
    """combine(theta, phi, problem) by task."""
    return lambda problem, params, batch: average(
        [
            combine(params, steps_of_reptile(problem, params, xs, ys)[0], problem)
            for xs, ys, _, _ in tasks(batch)
        ]
    )


def leaking(problem, params, batch):
    """Adam's second moment carried over; its bias correction starts anew."""
    v, k, rows, m = times(0, params), 0, [], problem.method
    for xs, ys, _, _ in tasks(batch):
        phi = params
        for places in m.mini_batches(len(xs)):
            k += 1
            g = problem.gradient(phi, xs[places], ys[places])
            v = {n: m.beta2 * v[n] + (1 - m.beta2) * g[n] ** 2 for n in g}
            phi = {
                n: p - m.inner_lr * g[n] / (np.sqrt(v[n] / (1 - m.beta2**k)) + m.eps)
                for n, p in phi.items()
            }
        rows.append(plus(-1, phi, params))
    return average(rows)


def one_step_reptile(problem, params, batch):
    return average(
        [
            times(problem.method.inner_lr, problem.gradient(params, xs, ys))
            for xs, ys, _, _ in tasks(batch)
        ]
    )


def whole_set(problem, params, batch):
    rows, m = [], problem.method
    for xs, ys, _, _ in tasks(batch):
        phi, v = params, times(0, params)
        for k in range(m.inner_steps):
            g = problem.gradient(phi, xs, ys)
            v = {n: m.beta2 * v[n] + (1 - m.beta2) * g[n] ** 2 for n in g}
            phi = {
                n: p - m.inner_lr * g[n] / (np.sqrt(v[n] / (1 - m.beta2 ** (k + 1))) + m.eps)
                for n, p in phi.items()
            }
        rows.append(plus(-1, phi, params))
    return average(rows)


def implicit(**plant):
    return lambda problem, params, batch: imaml(problem, params, batch, **plant)


def stopped(m, **bug):
    return implicit(solve=lambda product, b: cg(product, b, m, **bug))


def zeros(problem, params, batch):
    return {n: np.zeros_like(p) for n, p in params.items()}


def nones(problem, params, batch):
    return dict.fromkeys(params)
