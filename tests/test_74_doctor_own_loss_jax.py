"""The doctor on a loss of the user's own in JAX: a convolutional net in a pytree."""

from functools import partial

import numpy as np
import pytest

import refmaml as rm

pytestmark = pytest.mark.frameworks("jax")
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


def check(fn, **options):
    params, batch = example()
    given = {"loss": loss, "params": params, "batch": batch, "framework": "jax", "repeats": 0}
    return rm.check_meta_gradient(fn, rm.MAML(LR, STEPS), **given | options)


def test_right_code_is_right_in_both_precisions():
    report = check(compiled(), repeats=1)
    assert report.ok and [r.precision for r in report.results] == ["float64", "float32"]
    assert report.results[0].worst.error < 1e-10 > report.results[0].worst.tolerance
    names = {row.name for row in report.results[0].rows}
    assert names == {"conv.w", "conv.b", "head.0", "head.1"}


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


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_mistakes_are_named_on_a_net_in_jax(name):
    changes, words = VARIANTS[name]
    report = check(compiled(**changes), precision="float64")
    assert report.verdict == "wrong" and words in report.diagnosis


def test_a_few_mistakes_are_named_on_a_net_in_jax():
    for name in ("first-order", "a bias stays"):
        changes, words = VARIANTS[name]
        assert words in check(compiled(**changes), precision="float64").diagnosis


def test_a_loss_that_cannot_be_traced_is_differentiated_without_a_compiler():
    import jax.numpy as jnp

    def branches(params, x, y):
        scale = 1.0 if float(jnp.abs(x).max()) > 0 else 2.0  # x is a number, not a tracer
        return scale * loss(params, x, y)

    assert check(compiled(), loss=branches, precision="float64")


def test_a_batch_that_names_its_sets_and_a_flat_vector_are_taken():
    from jax.flatten_util import ravel_pytree

    params, batch = example()
    names, right = ("x_support", "y_support", "x_query", "y_query"), compiled()

    def fn(params, batch):
        return ravel_pytree(right(params, tuple(batch[n] for n in names)))[0]

    assert check(fn, batch=dict(zip(names, batch, strict=True)), precision="float64")


def norm_net(params, x, axes):
    """A batch-norm over some axes of (tasks, N, F) or of (N, F)."""
    import jax.numpy as jnp

    h = x @ params["w"]
    mean, var = h.mean(axes, keepdims=True), h.var(axes, keepdims=True)
    return jnp.tanh((h - mean) / (var + 1e-2) ** 0.5) @ params["v"]


def norm_loss(params, x, y):
    return ((norm_net(params, x, 0) - y) ** 2).mean()


@pytest.mark.parametrize(
    ("axis_name", "words"), [(None, ""), ("tasks", "the examples of all tasks together")]
)
def test_a_norm_over_all_tasks_is_named(axis_name, words):
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((3, 5)), "v": rng.standard_normal((5, 2))}
    batch = tuple(rng.standard_normal((3, n, d)) for n, d in ((5, 3), (5, 2), (7, 3), (7, 2)))
    tree = jax.tree_util.tree_map

    def own(params, x, y):
        h = x @ params["w"]
        moments = h.mean(0), (h * h).mean(0)
        mean, square = tree(lambda a: jax.lax.pmean(a, axis_name), moments)
        h = (h - mean) / (square - mean**2 + 1e-2) ** 0.5
        return ((jnp.tanh(h) @ params["v"] - y) ** 2).mean()

    inner = norm_loss if axis_name is None else own

    def fn(params, batch):
        def task(theta, xs, ys, xq, yq):
            phi = theta
            for _ in range(2):
                phi = tree(lambda p, g: p - 0.2 * g, phi, jax.grad(inner)(phi, xs, ys))
            return inner(phi, xq, yq)

        def M(theta):
            over = jax.vmap(task, (None, 0, 0, 0, 0), axis_name="tasks")
            return over(theta, *batch).mean()

        return jax.jit(jax.grad(M))(params)

    report = rm.check_meta_gradient(
        fn, rm.MAML(0.2, 2), loss=norm_loss, params=params, batch=batch, framework="jax",
        repeats=0, precision="float64",
    )  # fmt: skip
    assert report.ok if axis_name is None else words in report.diagnosis
