"""The nets in JAX as XLA's CPU compiler likes them: images channels last, a convolution as one product with the matrix of patches.

lax.conv_general_dilated has no fast second derivative on a CPU: on the strided net the formulas here are 10 times faster under lax.map
and 5 times under vmap, so these are what JAX takes part with. lax.reduce_window has the same fault. Windows lie side by side here, which is
all that the nets of the bench ask for.

A maximum is taken by comparisons, never by x.max or jnp.maximum: their derivative asks which x equals the maximum, and XLA may compute x
a second time in another fused loop, rounded otherwise, so that none does. On the max-pool net that is 0.8 off in float32, NaN in float64.
"""

from functools import partial, reduce

from refmaml import layers
from refmaml.autodiff import formulas
from refmaml.autodiff.jax_autodiff import framework


def first_use():
    """The derivative of a square, compiled."""
    import jax

    jax.jit(jax.grad(lambda x: x * x))(1.0)


def channels_last(x):
    """(N, C, H, W) -> (N, H, W, C)."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def conv2d(f, layer, w, x):
    """The matrix of patches (N Ho Wo, kH kW C) times the filters (kH kW C, O)."""
    (kH, kW), (sH, sW), padding, (Ho, Wo) = layer.geometry(tuple(x.shape[1:3]))
    x = f.xp.pad(x, ((0, 0), *padding, (0, 0)))
    patches = f.xp.concatenate(
        [
            x[:, p : p + sH * (Ho - 1) + 1 : sH, q : q + sW * (Wo - 1) + 1 : sW]
            for p in range(kH)
            for q in range(kW)
        ],
        -1,
    )
    filters = w["weight"].transpose(2, 3, 1, 0)
    y = patches.reshape(-1, patches.shape[-1]) @ filters.reshape(patches.shape[-1], -1)
    y = y.reshape(len(x), Ho, Wo, -1)
    return y + w["bias"] if layer.bias else y


def library_conv2d(f, layer, w, x):
    """XLA's own: on a GPU it is cuDNN's."""
    from jax import lax

    _, stride, padding, _ = layer.geometry(tuple(x.shape[1:3]))
    y = lax.conv_general_dilated(
        x, w["weight"], stride, padding, dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    return y + w["bias"] if layer.bias else y


def batch_norm2d(f, layer, w, x):
    centred = x - x.mean(axis=(0, 1, 2))
    y = centred * ((centred * centred).mean(axis=(0, 1, 2)) + layer.eps) ** -0.5
    y = y * w["weight"] if layer.gamma else y
    return y + w["bias"] if layer.beta else y


def windows(layer, x):
    """(N, Ho, kH, Wo, kW, C); what fills no whole window is left out."""
    (kH, kW), _ = layer.geometry()
    Ho, Wo = x.shape[1] // kH, x.shape[2] // kW
    return x[:, : Ho * kH, : Wo * kW].reshape(len(x), Ho, kH, Wo, kW, -1)


def max_pool2d(f, layer, w, x):
    seen = windows(layer, x)
    rows = reduce(partial(larger, f), [seen[:, :, p] for p in range(seen.shape[2])])
    return reduce(partial(larger, f), [rows[:, :, :, q] for q in range(rows.shape[3])])


def larger(f, a, b):
    """Elementwise, a where they are equal."""
    return f.xp.where(b > a, b, a)


FASTER = {
    layers.Conv2d: conv2d,
    layers.BatchNorm2d: batch_norm2d,
    layers.MaxPool2d: max_pool2d,
    layers.AvgPool2d: lambda f, layer, w, x: windows(layer, x).mean(axis=(2, 4)),
    layers.SpatialMean: lambda f, layer, w, x: x.mean(axis=(1, 2)),
    layers.Flatten: lambda f, layer, w, x: (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(
        len(x), -1
    ),
}


def meta_gradient(workload, dtype, unroll, over_tasks, convolution=conv2d):
    """A function without arguments that returns the mean meta-gradient (P,), an array of JAX's, compiled when first called.

    over_tasks  (gradient of one task, tasks) -> gradients of all; unroll: as lax.scan's, of the inner steps
    """
    import jax
    from jax import numpy as jnp

    net, method, f = workload.net(), workload.method, framework()
    forward = formulas.FORWARD | FASTER | {layers.Conv2d: convolution}

    def loss(phi, x, y):
        return formulas.named_loss(f, net, phi, channels_last(x), y, forward, formulas.LOSSES)

    def task_gradient(theta, x_support, y_support, x_query, y_query):
        def step(phi, _):
            gradients = jax.grad(loss)(phi, x_support, y_support)
            return {name: a - method.inner_lr * gradients[name] for name, a in phi.items()}, None

        def meta_loss(theta):
            phi, _ = jax.lax.scan(step, theta, length=method.inner_steps, unroll=unroll)
            return loss(phi, x_query, y_query)

        return jax.grad(meta_loss)(theta)

    @jax.jit
    def mean_gradient(theta, tasks):
        each = over_tasks(lambda task: task_gradient(theta, *task), tasks)
        return jnp.concatenate(
            [each[name].mean(axis=0).ravel() for name in net.shapes]
        )  # a dict of JAX is sorted

    theta = jax.tree.map(jnp.asarray, net.named(workload.theta(dtype)))
    batch = workload.batch(dtype)
    tasks = tuple(
        map(jnp.asarray, (batch.x_support, batch.y_support, batch.x_query, batch.y_query))
    )
    return lambda: mean_gradient(theta, tasks)


def vmapped(function, tasks):
    """All tasks at once."""
    import jax

    return jax.vmap(function)(tasks)


def unrolls(workload):
    """The inner loop as a loop, or written out; one step is the same either way."""
    return (1,) if workload.inner_steps == 1 else (1, workload.inner_steps)
