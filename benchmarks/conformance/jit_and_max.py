"""JAX: a maximum over windows, differentiated twice under jit, is wrong in one form."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from refmaml.oracles.tolerance import relative_error


def windows(x):
    """The four entries of each 2 x 2 window of x (N, C, 5, 7): arrays (N, C, 2, 3).

    The last row and column are left out.
    """
    return [x[..., p:4:2, q:6:2] for p in range(2) for q in range(2)]


def poolings():
    """{code of a maximum over windows: function}."""
    import jax.numpy as jnp
    from jax import lax

    def by_comparison(x):
        best, *others = windows(x)
        for other in others:
            best = jnp.where(other > best, other, best)
        return best

    def by_maximum(x):
        best, *others = windows(x)
        for other in others:
            best = jnp.maximum(best, other)
        return best

    return {
        "where(b > a, b, a)": by_comparison,
        "jnp.maximum": by_maximum,
        "stack(...).max(axis=0)": lambda x: jnp.stack(windows(x)).max(axis=0),
        "stack(...).max(axis=0) behind lax.optimization_barrier": lambda x: jnp.stack(
            windows(lax.optimization_barrier(x))
        ).max(axis=0),
        "lax.reduce_window": lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
        ),
    }


def random_tasks():
    """Parameters of the net, and the images of five tasks of eleven examples."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 11, 2, 5, 7))
    params = {
        "w": 0.5 * rng.standard_normal((3, 2)),
        "gamma": rng.standard_normal(3) + 1,
        "beta": 0.1 * rng.standard_normal(3),
        "head": 0.3 * rng.standard_normal((7, 18)),
    }
    return params, x


def batch_norm(x, gamma, beta):
    """Batch-norm of x (N, C, H, W) in primitives."""
    centred = x - x.mean(axis=(0, 2, 3), keepdims=True)
    variance = (centred * centred).mean(axis=(0, 2, 3), keepdims=True)
    scale, shift = gamma.reshape(-1, 1, 1), beta.reshape(-1, 1, 1)
    return centred * (variance + 1e-3) ** -0.5 * scale + shift


def meta_gradient(pool, compiled):
    """(T, P): gradients of the loss after two inner steps, five tasks at once, float64.

    The net: a linear layer, batch-norm in primitives, ReLU, pooling, a head.
    """
    import jax
    import jax.numpy as jnp

    params, x = random_tasks()

    def loss(p, x):
        z = batch_norm(jnp.einsum("nihw,oi->nohw", x, p["w"]), p["gamma"], p["beta"])
        return (
            jnp.tanh(pool(jnp.where(z > 0, z, 0.0)).reshape(len(x), -1) @ p["head"].T) ** 2
        ).mean()

    def after(p, x):
        for _ in range(2):
            g = jax.grad(loss)(p, x)
            p = {name: p[name] - 0.5 * g[name] for name in p}
        return loss(p, x)

    function = jax.vmap(jax.grad(after), (None, 0))
    rows = (jax.jit(function) if compiled else function)(params, x)
    return np.concatenate([np.asarray(a).reshape(5, -1) for a in rows.values()], axis=1)


def jit_and_max():
    """{pooling: {"eager": error, "jit": error}} against comparisons without jit."""
    from refmaml.autodiff.jax_autodiff import float64

    with float64():
        truth = meta_gradient(poolings()["where(b > a, b, a)"], compiled=False)
        return {
            name: {
                "eager": relative_error(meta_gradient(pool, False), truth),
                "jit": relative_error(meta_gradient(pool, True), truth),
            }
            for name, pool in poolings().items()
        }
