"""jaxopt: GradientDescent, unrolled for MAML, implicitly differentiated for iMAML."""

from functools import partial

import jax
import jaxopt

from adapters.jax_grad import over_tasks
from adapters.library import Library, adapted


def maml(problem, params, batch):
    names = adapted(problem)

    def after(params, x, y, x_query, y_query):
        def inner(moving):
            return problem.loss(params | moving, x, y)

        solver = jaxopt.GradientDescent(
            inner,
            maxiter=problem.method.inner_steps,
            stepsize=problem.method.inner_lr,
            acceleration=False,
            tol=0.0,
            implicit_diff=False,
            unroll=True,
        )
        return problem.loss(
            params | solver.run({name: params[name] for name in names}).params, x_query, y_query
        )

    return over_tasks(jax.grad(after), params, batch)


def imaml(problem, params, batch):
    method = problem.method

    def objective(phi, theta, x, y):
        distance = sum(((phi[name] - theta[name]) ** 2).sum() for name in theta)
        return problem.loss(phi, x, y) + method.regularization / 2 * distance

    solve = partial(jaxopt.linear_solve.solve_cg, tol=1e-15, maxiter=60)
    solver = jaxopt.GradientDescent(
        objective,
        maxiter=150,
        stepsize=method.inner_lr,
        acceleration=False,
        tol=0.0,
        implicit_diff=True,
        implicit_diff_solve=solve,
    )

    def after(theta, x, y, x_query, y_query):
        start = jax.lax.stop_gradient(theta)
        return problem.loss(solver.run(start, theta, x, y).params, x_query, y_query)

    return over_tasks(jax.grad(after), params, batch)


LIBRARY = Library(
    "jaxopt",
    "jaxopt",
    ("jaxopt", "jax", "jaxlib"),
    "jax",
    {"MAML": maml, "ANIL": maml, "iMAML": imaml},
    {
        "first-order MAML": "no such switch",
        "Meta-SGD": "one step size for all parameters",
        "Reptile": "no method of its own",
    },
)
