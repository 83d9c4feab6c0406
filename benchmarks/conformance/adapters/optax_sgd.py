"""optax: its SGD in the inner loop, differentiated by JAX."""

import jax
import optax

from adapters.jax_grad import over_tasks
from adapters.library import Library, adapted, weights


def descend(problem, params, x, y, stop=False):
    labels = {name: "moves" if name in adapted(problem) else "stays" for name in problem.net.shapes}
    optimizer = optax.multi_transform(
        {"moves": optax.sgd(problem.method.inner_lr), "stays": optax.set_to_zero()}, labels
    )
    phi = weights(problem, params)
    state = optimizer.init(phi)
    for _ in range(problem.method.inner_steps):
        g = jax.grad(problem.loss)(phi, x, y)
        updates, state = optimizer.update(jax.lax.stop_gradient(g) if stop else g, state, phi)
        phi = optax.apply_updates(phi, updates)
    return phi


def unrolled(stop):
    def fn(problem, params, batch):
        def after(params, x, y, x_query, y_query):
            return problem.loss(descend(problem, params, x, y, stop), x_query, y_query)

        return over_tasks(jax.grad(after), params, batch)

    return fn


def reptile(problem, params, batch):
    def displacement(params, x, y, x_query, y_query):
        phi = descend(problem, params, x, y)
        return {name: params[name] - phi[name] for name in params}

    return over_tasks(displacement, params, batch)


LIBRARY = Library(
    "optax",
    "optax",
    ("optax", "jax", "jaxlib"),
    "jax",
    {
        "MAML": unrolled(False),
        "first-order MAML": unrolled(True),
        "ANIL": unrolled(False),
        "Reptile": reptile,
    },
    {"Meta-SGD": "one learning rate for all parameters", "iMAML": "no implicit differentiation"},
)
