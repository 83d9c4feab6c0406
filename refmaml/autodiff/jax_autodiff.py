"""Oracle: meta-gradients and Hessian-vector products by JAX, in float64.

The Hessian-vector product is forward over reverse mode; PyTorch's is reverse over
reverse. JAX computes in float32 by default, so both run inside the context `float64()`,
which restores every setting on exit.
"""

from contextlib import contextmanager

import numpy as np

from refmaml.autodiff.formulas import Framework, inner_rates, mean_over_tasks, task_loss, why_not


def missing():
    """None if JAX can be imported, otherwise the reason."""
    return why_not("jax")


@contextmanager
def float64(platform="cpu"):
    """A context with 64-bit numbers, on the first device of that platform."""
    import jax

    enable_x64 = getattr(jax, "enable_x64", None)
    if enable_x64 is None:  # its place in older releases
        from jax.experimental import enable_x64
    with enable_x64(True), jax.default_device(jax.devices(platform)[0]):
        yield


def framework():
    """JAX as formulas.py uses it."""
    import jax.numpy as jnp
    from jax import lax

    def reduce_windows(x, start, operation, window, stride):
        return lax.reduce_window(x, start, operation, (1, 1, *window), (1, 1, *stride), "VALID")

    def max_pool2d(x, window, stride):
        return reduce_windows(x, -jnp.inf, lax.max, window, stride)

    def avg_pool2d(x, window, stride):
        return reduce_windows(x, 0.0, lax.add, window, stride) / (window[0] * window[1])

    def conv2d(x, w, stride, padding, dilation, groups):
        return lax.conv_general_dilated(
            x, w, stride, padding, rhs_dilation=dilation, feature_group_count=groups
        )

    def constant(numbers, like):
        return jnp.asarray(numbers, like.dtype)

    return Framework(jnp, conv2d, max_pool2d, avg_pool2d, lax.erf, constant)


def jax_meta_gradient(
    net, theta, batch, inner_lr, inner_steps, adapts=("*",), frozen=(), first_order=False
):
    """dM/dtheta (P,) in float64.

    M is the mean over tasks of the query loss after K inner steps.

    inner_lr, inner_steps, adapts, frozen  as in MAML
    first_order  the inner gradients are constants: the gradient of first-order MAML
    Raises ArgumentError for a layer or loss that has no formula in formulas.py.
    """
    import jax

    A, start = inner_rates(net, inner_lr, adapts, frozen), np.asarray(theta, np.float64)
    gradient = jax.jit(task_gradient, static_argnums=(0, 1))
    with float64():
        return mean_over_tasks(
            net,
            lambda *task: gradient(net, inner_steps, start, A, first_order, *task),
            batch.x_support,
            batch.y_support,
            batch.x_query,
            batch.y_query,
        )


def task_gradient(net, inner_steps, theta, A, first_order, x_support, y_support, x_query, y_query):
    """One task's dM_t/dtheta: jax.grad through the whole inner loop.

    XLA needs seconds to compile the second derivatives of a convolutional net. So the
    loop is a scan, whose body is compiled once for all steps, and first_order is an
    operand instead of a branch: one compilation serves both.
    """
    import jax

    f = framework()
    inner_gradient = jax.grad(lambda phi: task_loss(f, net, phi, x_support, y_support))

    def inner_step(phi, _):
        gradient = inner_gradient(phi)
        return phi - A * f.xp.where(first_order, jax.lax.stop_gradient(gradient), gradient), None

    def loss_after_adaptation(theta):
        phi, _ = jax.lax.scan(inner_step, theta, length=inner_steps)
        return task_loss(f, net, phi, x_query, y_query)

    return jax.grad(loss_after_adaptation)(theta)


def jax_hvp(net, theta, x, y, v):
    """H v (P,) in float64, H the Hessian of the mean loss at theta (P,).

    The mean is over the tasks of x, y.
    """
    import jax

    w, v = np.asarray(theta, np.float64), np.asarray(v, np.float64)
    product = jax.jit(task_product, static_argnums=0)
    with float64():
        return mean_over_tasks(net, lambda *task: product(net, w, v, *task), x, y)


def task_product(net, w, v, x, y):
    """H v of one task: forward over reverse mode."""
    import jax

    return jax.jvp(jax.grad(lambda w: task_loss(framework(), net, w, x, y)), (w,), (v,))[1]
