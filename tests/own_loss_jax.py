"""A convolutional net in JAX in a pytree, and MAML on it with the mistakes that occur
in such code."""

from functools import partial

import numpy as np

LR, STEPS, TASKS, SUPPORT, QUERY, CLASSES = 0.6, 2, 3, 5, 7, 4


def net(params, x):
    import jax

    def conv(x, w, b):
        numbers = ("NCHW", "OIHW", "NCHW")
        x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)
        return x + b[:, None, None]

    x = jax.nn.gelu(conv(x, **params["conv"])).mean((2, 3))
    return x @ params["head"][0] + params["head"][1]


def loss(params, x, y):
    import jax

    log_p = jax.nn.log_softmax(net(params, x))
    return -jax.numpy.take_along_axis(log_p, y[:, None], 1).mean()


def example():
    """(params, batch), NumPy arrays in a pytree."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return 0.5 * rng.standard_normal(shape)

    params = {
        "conv": {"w": draw(3, 1, 3, 3), "b": draw(3)},
        "head": (draw(3, CLASSES), draw(CLASSES)),
    }
    x = [2 * draw(TASKS, n, 1, 5, 5) for n in (SUPPORT, QUERY)]
    y = [rng.integers(0, CLASSES, (TASKS, n)) for n in (SUPPORT, QUERY)]
    return params, (x[0], y[0], x[1], y[1])


def meta(
    params, batch, first_order=False, twice=1.0, lr=LR, steps=STEPS, at="previous",
    query_at=-1, sets=lambda s: s, losses=lambda v: v.mean(), last=None, keep=lambda p, n: n,
):  # fmt: skip
    """MAML in JAX, each keyword a place where code goes wrong."""
    import jax

    tree, stop = jax.tree_util.tree_map, jax.lax.stop_gradient

    def task(theta, *four):
        xs, ys, xq, yq = sets(four)
        phis = [theta]
        for k in range(steps):
            phi = phis[-1]
            if last is not None and k == steps - last:  # the steps before are constants
                phi = tree(lambda p, t: stop(p) + t - stop(t), phi, theta)
            g = jax.grad(loss)(theta if at == "start" else phi, xs, ys)
            g = tree(stop, g) if first_order else g
            g = tree(lambda a: twice * a - (twice - 1) * stop(a), g)
            phis.append(keep(phi, tree(lambda p, d: p - lr * d, phi, g)))
        return loss(phis[query_at], xq, yq)

    def M(theta):
        return losses(jax.vmap(task, (None, 0, 0, 0, 0))(theta, *batch))

    return jax.grad(M)(params)


def compiled(**changes):
    """The function, compiled once."""
    import jax

    return jax.jit(partial(meta, **changes))


def without_bias(phi, new):
    """The head's bias as it was."""
    return {**new, "head": (new["head"][0], phi["head"][1])}


VARIANTS = {
    "first-order": ({"first_order": True}, "first-order"),
    "twice": ({"twice": 2.0}, "Hessian counts twice"),
    "half": ({"twice": 0.5}, "Hessian counts half"),
    "sign": ({"twice": -1.0}, "Hessian has the wrong sign"),
    "last step": ({"last": 1}, "only the last 1 of the inner steps"),
    "unadapted": ({"query_at": 0}, "unadapted parameters"),
    "query on support": ({"sets": lambda s: (*s[:2], *s[:2])}, "measured on the support set"),
    "inner on query": ({"sets": lambda s: (*s[2:], *s[2:])}, "adapts on the query set"),
    "swapped": ({"sets": lambda s: (*s[2:], *s[:2])}, "sets are swapped"),
    "first task": ({"losses": lambda v: v[0]}, "only the first task"),
    "sum": ({"losses": lambda v: v.sum()}, "times B"),
    "too few steps": ({"steps": STEPS - 1}, "one inner step too few"),
    "too many steps": ({"steps": STEPS + 1}, "one inner step too many"),
    "gradient at the start": ({"at": "start"}, "takes the gradient at the initial"),
    "step twice": ({"lr": 2 * LR}, "step size is twice"),
    "ascent": ({"lr": -LR}, "ascends"),
    "a bias stays": ({"keep": without_bias}, "does not adapt head.1"),
}
