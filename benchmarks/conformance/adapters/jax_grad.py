"""JAX: jax.grad of a function with jax.grad inside, compiled, vmap over tasks."""

import jax
from jax.scipy.sparse.linalg import cg

from adapters.library import Library, rates, weights


def descend(problem, params, x, y, stop=False):
    """phi_K after K steps of gradient descent."""
    phi, alpha = weights(problem, params), rates(problem, params)
    for _ in range(problem.method.inner_steps):
        g = jax.grad(problem.loss)(phi, x, y)
        phi = phi | {
            name: phi[name] - alpha[name] * (jax.lax.stop_gradient(g[name]) if stop else g[name])
            for name in alpha
        }
    return phi


def over_tasks(one_task, params, batch):
    """The mean over tasks of one_task(params, *task), by vmap, compiled."""
    rows = jax.jit(jax.vmap(one_task, (None, 0, 0, 0, 0)))(params, *batch)
    return {name: g.mean(axis=0) for name, g in rows.items()}


def unrolled(descend, stop):
    """MAML by any `descend(problem, params, x, y, stop)`.

    stop  stop the gradient of each inner gradient: first-order MAML
    """

    def fn(problem, params, batch):
        def after(params, x, y, x_query, y_query):
            return problem.loss(descend(problem, params, x, y, stop), x_query, y_query)

        return over_tasks(jax.grad(after), params, batch)

    return fn


def reptile(descend):
    """Reptile's displacement theta - phi_K by any `descend(problem, params, x, y)`."""

    def fn(problem, params, batch):
        def displacement(params, x, y, x_query, y_query):
            phi = descend(problem, params, x, y)
            return {name: params[name] - phi[name] for name in params}

        return over_tasks(displacement, params, batch)

    return fn


def imaml(problem, params, batch):
    """Gradient descent on the proximal problem, then jax.scipy's conjugate gradients.

    Hessian-vector products are by jvp of grad.
    """
    method = problem.method

    def one_task(theta, x, y, x_query, y_query):
        def inner(phi):
            return jax.grad(problem.loss)(phi, x, y)

        def step(_, phi):
            return jax.tree.map(
                lambda a, g, b: a - method.inner_lr * (g + method.regularization * (a - b)),
                phi,
                inner(phi),
                theta,
            )

        def product(v):
            return jax.tree.map(
                lambda a, h: a + h / method.regularization, v, jax.jvp(inner, (phi,), (v,))[1]
            )

        phi = jax.lax.fori_loop(0, 150, step, theta)
        return cg(
            product, jax.grad(problem.loss)(phi, x_query, y_query), tol=1e-15, atol=0.0, maxiter=60
        )[0]

    return over_tasks(one_task, params, batch)


LIBRARY = Library(
    "JAX",
    "jax",
    ("jax", "jaxlib"),
    "jax",
    {
        "MAML": unrolled(descend, False),
        "first-order MAML": unrolled(descend, True),
        "ANIL": unrolled(descend, False),
        "Meta-SGD": unrolled(descend, False),
        "Reptile": reptile(descend),
        "iMAML": imaml,
    },
)
