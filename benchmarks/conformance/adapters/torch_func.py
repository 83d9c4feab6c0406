"""torch.func: vmap over tasks of the gradient of a function with a gradient inside."""

import torch
from torch.func import grad, hessian, vmap

from adapters.library import Library, rates, weights


def descend(problem, params, x, y, detach=False):
    phi, alpha = weights(problem, params), rates(problem, params)
    for _ in range(problem.method.inner_steps):
        g = grad(problem.loss)(phi, x, y)
        phi = phi | {
            name: phi[name] - alpha[name] * (g[name].detach() if detach else g[name])
            for name in alpha
        }
    return phi


def over_tasks(one_task, problem, params, batch):
    """The mean over tasks of one_task(params, *task), by vmap."""
    rows = vmap(lambda *task: one_task(params, *task))(
        batch.x_support, batch.y_support, batch.x_query, batch.y_query
    )
    return {name: g.mean(dim=0) for name, g in rows.items()}


def unrolled(detach):
    def fn(problem, params, batch):
        def after(params, x, y, x_query, y_query):
            return problem.loss(descend(problem, params, x, y, detach), x_query, y_query)

        return over_tasks(grad(after), problem, params, batch)

    return fn


def reptile(problem, params, batch):
    def displacement(params, x, y, x_query, y_query):
        phi = descend(problem, params, x, y)
        return {name: params[name] - phi[name] for name in params}

    return over_tasks(displacement, problem, params, batch)


def imaml(problem, params, batch):
    """Gradient descent on the proximal problem, then the linear system by LAPACK.

    The Hessian is a matrix, by torch.func.hessian.
    """
    strength, sizes = problem.method.regularization, [a.numel() for a in params.values()]

    def named(w):
        return {
            name: part.reshape(a.shape)
            for (name, a), part in zip(params.items(), torch.split(w, sizes), strict=True)
        }

    def one_task(params, x, y, x_query, y_query):
        theta = torch.cat([a.ravel() for a in params.values()])
        phi = theta
        for _ in range(150):
            phi = phi - problem.method.inner_lr * (
                grad(lambda w: problem.loss(named(w), x, y))(phi) + strength * (phi - theta)
            )
        H = hessian(lambda w: problem.loss(named(w), x, y))(phi)
        q = grad(lambda w: problem.loss(named(w), x_query, y_query))(phi)
        return named(torch.linalg.solve(torch.eye(len(phi), dtype=phi.dtype) + H / strength, q))

    return over_tasks(one_task, problem, params, batch)


LIBRARY = Library(
    "torch.func",
    "torch",
    ("torch",),
    "torch",
    {
        "MAML": unrolled(False),
        "first-order MAML": unrolled(True),
        "ANIL": unrolled(False),
        "Meta-SGD": unrolled(False),
        "Reptile": reptile,
        "iMAML": imaml,
    },
)
