"""Inner loops of JAX: Adam of optax where it is declared; statistics of batch-norm."""

import pytest

import refmaml as rm


def inner_adam(eps_root, stop=lambda v: v):
    """MAML with optax.adam; stop: on the gradients that go into the second moment."""
    import jax
    import jax.numpy as jnp
    import optax

    def step(opt, g, state, phi, alpha, k):
        if stop is None:
            return opt.update(g, state, phi)
        m, v = state
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * stop(g) ** 2, v, g)
        c1, c2 = 1 - 0.9 ** (k + 1), 1 - 0.999 ** (k + 1)
        up = jax.tree.map(
            lambda m, v: -alpha * (m / c1) / (jnp.sqrt(v / c2 + eps_root) + 1e-8), m, v
        )
        return up, (m, v)

    def fn(problem, params, batch):
        alpha = problem.method.inner_lr
        opt = optax.adam(alpha, eps=1e-8, eps_root=eps_root)

        def one(theta, xs, ys, xq, yq):
            zeros = jax.tree.map(jnp.zeros_like, theta)
            phi, state = theta, opt.init(theta) if stop is None else (zeros, zeros)
            for k in range(problem.method.inner_steps):
                g = jax.grad(problem.loss)(phi, xs, ys)
                up, state = step(opt, g, state, phi, alpha, k)
                phi = optax.apply_updates(phi, up)
            return problem.loss(phi, xq, yq)

        sets = batch.x_support, batch.y_support, batch.x_query, batch.y_query
        return jax.grad(lambda theta: jax.vmap(one, (None, 0, 0, 0, 0))(theta, *sets).mean())(
            params
        )

    return fn


def checked(fn, rule):
    return rm.check_meta_gradient(
        fn, rm.MAML(0.1, 3, rule=rule), framework="jax", repeats=0, precision="float64",
        probes=("quadratic", "two-layer"),
    )  # fmt: skip


@pytest.mark.frameworks("jax", "optax")
@pytest.mark.parametrize("eps_root", [pytest.param(0.0, marks=pytest.mark.slow), 1e-8])
def test_adam_of_optax_is_right_where_it_is_declared(eps_root):
    assert checked(inner_adam(eps_root, None), rm.Adam(eps_root=eps_root))


@pytest.mark.frameworks("jax", "optax")
def test_a_second_moment_that_is_stopped_has_its_name():
    import jax

    report = checked(inner_adam(1e-8, jax.lax.stop_gradient), rm.Adam(eps_root=1e-8))
    assert "the second moment of Adam is detached" in report.diagnosis, str(report)


# ---- batch-norm under vmap over tasks ------------------------------------------------

ALPHA, EPS = 0.3, 1e-3


def features(w, x, mean):
    """A net of batch-norm with mean(h) over examples and pixels, or over more."""
    import jax.numpy as jnp

    h = jnp.einsum("c,nhw->nchw", w["0.weight"].ravel(), x[:, 0])
    mu, square = mean(h), mean(h**2)
    h = (h - mu) / jnp.sqrt(square - mu**2 + EPS)
    h = jnp.tanh(h * w["1.weight"][:, None, None] + w["1.bias"][:, None, None])
    return h.reshape(len(x), -1) @ w["4.weight"].T + w["4.bias"]


def with_statistics(over):
    """MAML on that net, statistics over each set, all "tasks", or both "sets"."""
    import jax
    import jax.numpy as jnp

    def mean(h):
        own = h.mean((0, 2, 3), keepdims=True)
        return jax.lax.pmean(own, "tasks") if over == "tasks" else own

    def loss(w, x, y, other):
        x = jnp.concatenate([x, other]) if over == "sets" else x
        return ((features(w, x, mean)[: len(y)] - y) ** 2).mean() / 2

    def one(theta, xs, ys, xq, yq):
        phi = theta
        for _ in range(2):
            g = jax.grad(loss)(phi, xs, ys, xq)
            phi = {n: p - ALPHA * g[n] for n, p in phi.items()}
        return loss(phi, xq, yq, xs)

    def total(theta, *sets):
        return jax.vmap(one, (None, 0, 0, 0, 0), axis_name="tasks")(theta, *sets).mean()

    gradient = jax.jit(jax.grad(total))
    return lambda params, b: gradient(params, b.x_support, b.y_support, b.x_query, b.y_query)


@pytest.mark.slow
@pytest.mark.frameworks("jax")
@pytest.mark.parametrize(
    ("over", "words"),
    [
        ("each set", ""),
        ("tasks", "statistics are over all tasks together"),
        ("sets", "statistics are over the support and the query set together"),
    ],
)
def test_statistics_of_batch_norm_on_a_net_in_jax(over, words):
    layers = [rm.Conv2d(1, 2, 1, bias=False), rm.BatchNorm2d(2, eps=EPS), rm.Tanh(), rm.Flatten()]
    net = rm.Sequential([*layers, rm.Linear(8, 2)], rm.MSE(factor=0.5), (1, 2, 2))
    report = rm.check_meta_gradient(
        with_statistics(over), rm.MAML(ALPHA, 2), net=net, framework="jax", repeats=0,
        precision="float64",
    )  # fmt: skip
    if not words:
        assert report
    else:
        assert words in report.diagnosis and report.fix, str(report)
