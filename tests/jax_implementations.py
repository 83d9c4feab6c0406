"""Meta-gradients by JAX: right ones, and the mistakes that autodiff invites."""

from implementations import ANIL, CAVIA, FOMAML, IMAML, MAML, MAMLPP, META_SGD, REPTILE, K, tasks
from torch_implementations import query_as_support, swapped_sets
from wrong_implementations_table import Implementation

import refmaml as rm


def jax_maml(problem, params, batch, detach=False, mean=True, steps=None, last=False):
    """jax.grad through the inner loop, task by task under one jit."""
    import jax

    method, names = problem.method, list(problem.net.shapes)
    rates = jax_rates(problem)
    detach = detach or isinstance(method, rm.FirstOrderMAML)

    def meta_loss(params, xs, ys, xq, yq):
        phi = {n: params[n] for n in names}
        if isinstance(method, rm.CAVIA):
            phi = {n: p * 0 if n.endswith("context") else p for n, p in phi.items()}
        total = 0.0
        for k in range(steps or getattr(method, "inner_steps", 0)):
            grads = jax.grad(problem.loss)(phi, xs, ys)
            grads = jax.lax.stop_gradient(grads) if detach else grads
            phi = {n: phi[n] - rates(params, n, k) * grads[n] for n in names}
            total = total + problem.loss(phi, xq, yq) / method.inner_steps
        return total if isinstance(method, rm.MAMLPlusPlus) else problem.loss(phi, xq, yq)

    gradient = jax.jit(jax.grad(meta_loss))
    rows = [gradient(params, *task) for task in tasks(batch)]
    rows = rows[-1:] if last else rows
    return {n: sum(row[n] for row in rows) / (len(rows) if mean else 1) for n in params}


def jax_rates(problem):
    """(params, name, step) -> the step size."""
    method, net = problem.method, problem.net
    mask = net.named(net.mask(getattr(method, "adapts", ("*",))).astype(float))
    if isinstance(method, rm.MetaSGD):
        return lambda params, n, k: params[f"inner_lr.{n}"]
    if isinstance(method, rm.MAMLPlusPlus):
        return lambda params, n, k: params[f"inner_lr.{n}"][k]
    return lambda params, n, k: method.inner_lr * float(mask[n].any())


def jax_reptile(problem, params, batch):
    import jax

    rows, gradient = [], jax.jit(jax.grad(problem.loss))
    for xs, ys, _, _ in tasks(batch):
        phi = params
        for _ in range(problem.method.inner_steps):
            grads = gradient(phi, xs, ys)
            phi = {n: phi[n] - problem.method.inner_lr * grads[n] for n in phi}
        rows.append({n: params[n] - phi[n] for n in params})
    return {n: sum(row[n] for row in rows) / len(rows) for n in params}


def jax_imaml(problem, params, batch):
    """The implicit function theorem with jax's own CG."""
    import jax
    from jax.scipy.sparse.linalg import cg

    m = problem.method

    def solve(params, xs, ys, xq, yq):
        def step(phi, _):
            grads = jax.grad(problem.loss)(phi, xs, ys)
            return {
                n: phi[n] - m.inner_lr * (grads[n] + m.regularization * (phi[n] - params[n]))
                for n in phi
            }, None

        phi, _ = jax.lax.scan(step, params, length=m.inner_steps)
        q = jax.grad(problem.loss)(phi, xq, yq)

        def product(v):
            Hv = jax.jvp(lambda phi: jax.grad(problem.loss)(phi, xs, ys), (phi,), (v,))[1]
            return {n: v[n] + Hv[n] / m.regularization for n in v}

        return cg(product, q, tol=1e-15, maxiter=m.cg_steps)[0]

    compiled = jax.jit(solve)
    rows = [compiled(params, *task) for task in tasks(batch)]
    return {n: sum(row[n] for row in rows) / len(rows) for n in params}


JAX_RIGHT = [
    (jax_maml, m)
    for m in (MAML, FOMAML, ANIL, rm.FirstOrderANIL(0.1, K), META_SGD, MAMLPP, CAVIA, rm.ERM())
]
JAX_RIGHT += [(jax_reptile, REPTILE), (jax_imaml, IMAML)]
JAX = {
    "stop_gradient": Implementation("1", "first-order", lambda *a: jax_maml(*a, detach=True)),
    "sum": Implementation("10", "times B", lambda *a: jax_maml(*a, mean=False)),
    "a step more": Implementation(
        "16", "one inner step too many", lambda *a: jax_maml(*a, steps=K + 1)
    ),
    "last task": Implementation("8", "only the last task", lambda *a: jax_maml(*a, last=True)),
    "swapped": Implementation("7", "swapped", swapped_sets(jax_maml)),
    "query is support": Implementation(
        "6", "measured on the support set", query_as_support(jax_maml)
    ),
    "closure": Implementation(
        "36", "0 everywhere", lambda problem, params, batch: {n: 0 * p for n, p in params.items()}
    ),
}
