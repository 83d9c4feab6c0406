"""Homework 5, solved: MAML's recursion."""


def along(a, step, b):
    """a + step b, array by array."""
    return {name: a[name] + step * b[name] for name in a}


def maml(problem, params, batch):
    """The mean over tasks of d g(phi_K) / d theta. What `refmaml doctor` calls."""
    alpha, K = problem.method.inner_lr, problem.method.inner_steps
    total = {name: 0 for name in params}
    tasks = len(batch.x_support)
    for t in range(tasks):
        support = batch.x_support[t], batch.y_support[t]
        phis = [params]
        for _ in range(K):
            phis.append(along(phis[-1], -alpha, problem.gradient(phis[-1], *support)))
        lam = problem.gradient(phis[K], batch.x_query[t], batch.y_query[t])
        for k in reversed(range(K)):
            lam = along(lam, -alpha, problem.hvp(phis[k], *support, lam))
        total = along(total, 1 / tasks, lam)
    return total
