"""Adam of optax as the inner optimiser, in JAX: right where it is declared."""

import pytest

import refmaml as rm

pytestmark = pytest.mark.frameworks("jax", "optax")


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


@pytest.mark.parametrize("eps_root", [0.0, 1e-8])
def test_adam_of_optax_is_right_where_it_is_declared(eps_root):
    assert checked(inner_adam(eps_root, None), rm.Adam(eps_root=eps_root))


def test_a_second_moment_that_is_stopped_has_its_name():
    import jax

    report = checked(inner_adam(1e-8, jax.lax.stop_gradient), rm.Adam(eps_root=1e-8))
    assert "the second moment of Adam is detached" in report.diagnosis, str(report)
