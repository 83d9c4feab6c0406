"""What the implementations in JAX share: the meta-gradient, maps over tasks."""

from refmaml.autodiff import jax_formulas
from refmaml.bench.implementations.implicit import conjugate_gradients, proximal_step
from refmaml.bench.implementations.inner_steps import first_state, inner_step
from refmaml.methods import IMAML, MAML, Reptile

LINEARIZE, VJP = "linearize", "vjp"  # how products with H are computed


def first_use():
    """The derivative of a square, compiled."""
    import jax

    jax.jit(jax.grad(lambda x: x * x))(1.0)


def meta_gradient(
    workload, dtype, unroll, over_tasks, convolution=jax_formulas.conv2d, product=LINEARIZE
):
    """() -> the mean meta-gradient, a JAX array (P,).

    unroll      as of lax.scan, for the inner steps
    product     LINEARIZE or VJP, for iMAML
    over_tasks  (gradient of one task, tasks) -> gradients of all tasks
    The first call compiles it.
    """
    import jax
    from jax import numpy as jnp

    net = workload.net()
    loss = jax_formulas.make_loss(net, convolution)
    method = workload.method
    if isinstance(method, IMAML):
        task_gradient = of_imaml(loss, method, unroll, product)
    else:
        task_gradient = {MAML: of_maml, Reptile: of_reptile}[type(method)](loss, method, unroll)

    @jax.jit
    def mean_gradient(theta, tasks):
        each = over_tasks(lambda task: task_gradient(theta, *task), tasks)
        # JAX sorts the keys of a dict: net.shapes has the order of the flat vector.
        return jnp.concatenate([each[name].mean(axis=0).ravel() for name in net.shapes])

    theta = jax.tree.map(jnp.asarray, net.named(workload.theta(dtype)))
    tasks = tuple(jnp.asarray(a) for _, a in workload.batch(dtype).named)
    return lambda: mean_gradient(theta, tasks)


def of_maml(loss, method, unroll):
    """(theta, x_support, y_support, x_query, y_query) -> dM_t/dtheta, all by name."""
    import jax
    from jax import numpy as jnp

    def task_gradient(theta, x_support, y_support, x_query, y_query):
        def step(carried, t):
            (phi, state), rule = carried, method.rule
            g = jax.grad(loss)(phi, x_support, y_support)
            return inner_step(rule, method.inner_lr, phi, g, state, t, jnp.sqrt), None

        def meta_loss(theta):
            start, steps = (theta, first_state(method.rule, theta)), method.inner_steps
            numbers = jnp.arange(1, steps + 1)
            (phi, _), _ = jax.lax.scan(step, start, numbers, unroll=unroll)
            return loss(phi, x_query, y_query)

        return jax.grad(meta_loss)(theta)

    return task_gradient


def descend(loss, method, unroll, theta, x, y):
    """phi after a proximal inner loop, by name."""
    import jax

    def step(phi, _):
        return proximal_step(method, phi, jax.grad(loss)(phi, x, y), theta), None

    phi, _ = jax.lax.scan(step, theta, None, length=method.inner_steps, unroll=unroll)
    return phi


def of_imaml(loss, method, unroll, product):
    """As of_maml: CG; products are linear functions that JAX makes once for a task.

    LINEARIZE: the tangent of the gradient, forward over reverse. VJP: its pullback, as
    H is symmetric.
    """
    import jax
    from jax.flatten_util import ravel_pytree

    def task_gradient(theta, x_support, y_support, x_query, y_query):
        phi = descend(loss, method, unroll, theta, x_support, y_support)
        flat, unflattened = ravel_pytree(phi)

        def gradient(w):
            return jax.grad(lambda w: loss(unflattened(w), x_support, y_support))(w)

        if product == LINEARIZE:
            _, hvp = jax.linearize(gradient, flat)
        else:
            _, pull_back = jax.vjp(gradient, flat)
            hvp = lambda v: pull_back(v)[0]  # noqa: E731 (one of two)
        b, _ = ravel_pytree(jax.grad(loss)(phi, x_query, y_query))
        u = conjugate_gradients(lambda v: v + hvp(v) / method.regularization, b, method.cg_steps)
        return unflattened(u)

    return task_gradient


def of_reptile(loss, method, unroll):
    """As of_maml: theta - phi_K."""

    def task_gradient(theta, x_support, y_support, x_query, y_query):
        phi = descend(loss, method, unroll, theta, x_support, y_support)
        return {name: a - phi[name] for name, a in theta.items()}

    return task_gradient


def vmapped(function, tasks):
    """All tasks at once."""
    import jax

    return jax.vmap(function)(tasks)


def products(workload):
    """Ways to compute products with H; one where there are none."""
    return (LINEARIZE, VJP) if isinstance(workload.method, IMAML) else (LINEARIZE,)


def unrolls(workload):
    """Values of `unroll`: a loop, or all steps written out."""
    return (1,) if workload.inner_steps == 1 else (1, workload.inner_steps)
