"""Homework 5: MAML's recursion.

`problem.gradient(params, x, y)` is the gradient of one task's loss, and
`problem.hvp(params, x, y, v)` the product of its Hessian with v; all are {name: array}.
Write the inner step, the adjoint at its end, and the recursion back to theta.

    refmaml doctor docs/homework/maml.py:maml --framework numpy --method maml \
        --inner-lr 0.1 --inner-steps 3
"""


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
            phis.append(...)
        lam = ...
        for k in reversed(range(K)):
            lam = ...
        total = along(total, 1 / tasks, lam)
    return total
