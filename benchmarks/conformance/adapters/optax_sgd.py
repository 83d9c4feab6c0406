"""optax: its SGD in the inner loop, differentiated by JAX."""

import jax
import optax

from adapters.jax_grad import reptile, unrolled
from adapters.library import Library, adapted, weights


def descend(problem, params, x, y, stop=False):
    """phi_K after K steps of optax's SGD; frozen parameters get no update."""
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


LIBRARY = Library(
    "optax",
    "optax",
    ("optax", "jax", "jaxlib"),
    "jax",
    {
        "MAML": unrolled(descend, False),
        "first-order MAML": unrolled(descend, True),
        "ANIL": unrolled(descend, False),
        "Reptile": reptile(descend),
    },
    {"Meta-SGD": "one learning rate for all parameters", "iMAML": "no implicit differentiation"},
)
