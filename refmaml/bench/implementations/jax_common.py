"""What the implementations in JAX share: the meta-gradient, maps over tasks."""

from refmaml.autodiff import jax_formulas
from refmaml.bench.implementations.inner_steps import first_state, inner_step


def first_use():
    """The derivative of a square, compiled."""
    import jax

    jax.jit(jax.grad(lambda x: x * x))(1.0)


def meta_gradient(workload, dtype, unroll, over_tasks, convolution=jax_formulas.conv2d):
    """() -> the mean meta-gradient, a JAX array (P,).

    unroll      as of lax.scan, for the inner steps
    over_tasks  (gradient of one task, tasks) -> gradients of all tasks
    The first call compiles it.
    """
    import jax
    from jax import numpy as jnp

    net = workload.net()
    loss = jax_formulas.make_loss(net, convolution)
    task_gradient = make_task_gradient(loss, workload.method, unroll)

    @jax.jit
    def mean_gradient(theta, tasks):
        each = over_tasks(lambda task: task_gradient(theta, *task), tasks)
        # JAX sorts the keys of a dict: net.shapes has the order of the flat vector.
        return jnp.concatenate([each[name].mean(axis=0).ravel() for name in net.shapes])

    theta = jax.tree.map(jnp.asarray, net.named(workload.theta(dtype)))
    tasks = tuple(jnp.asarray(a) for _, a in workload.batch(dtype).named)
    return lambda: mean_gradient(theta, tasks)


def make_task_gradient(loss, method, unroll):
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


def vmapped(function, tasks):
    """All tasks at once."""
    import jax

    return jax.vmap(function)(tasks)


def unrolls(workload):
    """Values of `unroll`: a loop, or all steps written out."""
    return (1,) if workload.inner_steps == 1 else (1, workload.inner_steps)
