"""optax: its optimizers in the inner loop, differentiated by JAX."""

import jax
import optax

import refmaml as rm
from adapters.jax_grad import reptile, unrolled
from adapters.library import Library, adapted, weights


def optax_optimizer(rule, lr):
    """optax's optimizer with the fields of an update rule."""
    decay = getattr(rule, "weight_decay", 0.0)
    if rule.plain:
        return optax.sgd(lr)
    if isinstance(rule, rm.AdamW):
        return optax.adamw(lr, *rule.betas, rule.eps, rule.eps_root, weight_decay=decay)
    if isinstance(rule, rm.Adam):
        found = optax.adam(lr, *rule.betas, rule.eps, rule.eps_root)
    elif isinstance(rule, rm.SGD):
        found = optax.sgd(lr, rule.momentum, rule.nesterov)
    else:
        given = {"decay": rule.alpha, "eps": rule.eps, "centered": rule.centered}
        found = optax.rmsprop(lr, **given, momentum=rule.momentum or None, eps_in_sqrt=False)
    return optax.chain(optax.add_decayed_weights(decay), found) if decay else found


def lacks(rule):
    """Why optax has no such rule, or ""."""
    if isinstance(rule, rm.SGD) and rule.dampening:
        return "no dampening"
    if isinstance(rule, rm.RMSprop) and rule.eps_root:
        return "no RMSprop with eps inside and outside the root"
    known = isinstance(rule, rm.SGD | rm.Adam | rm.RMSprop) or rule.plain
    return "" if known else f"no {type(rule).__name__} in this adapter"


def descend(problem, params, x, y, stop=False):
    """phi_K after K steps of an optax optimizer; frozen parameters get no update."""
    labels = {name: "moves" if name in adapted(problem) else "stays" for name in problem.net.shapes}
    moves = optax_optimizer(problem.method.rule, problem.method.inner_lr)
    optimizer = optax.multi_transform({"moves": moves, "stays": optax.set_to_zero()}, labels)
    start = weights(problem, params)

    def step(carried, _):
        phi, state = carried
        g = jax.grad(problem.loss)(phi, x, y)
        updates, state = optimizer.update(jax.lax.stop_gradient(g) if stop else g, state, phi)
        return (optax.apply_updates(phi, updates), state), None

    carried = start, optimizer.init(start)
    (phi, _), _ = jax.lax.scan(step, carried, length=problem.method.inner_steps)
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
    lacks,
)
