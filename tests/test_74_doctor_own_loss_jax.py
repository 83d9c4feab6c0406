"""The doctor on a loss of the user's own in JAX: a convolutional net in a pytree."""

import numpy as np
import pytest
from own_loss_jax import LR, STEPS, VARIANTS, compiled, example, loss

import refmaml as rm

pytestmark = pytest.mark.frameworks("jax")


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
