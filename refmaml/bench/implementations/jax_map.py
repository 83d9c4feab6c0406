"""JAX: jit of lax.map over tasks, one task at a time."""

import numpy as np

from refmaml.bench.implementations import jax_common
from refmaml.bench.implementations.implementation import EVERY_METHOD, Implementation


def choices(workload):
    return {"unroll": jax_common.unrolls(workload), "product": jax_common.products(workload)}


def prepare(workload, dtype, unroll, product):
    """Compiled by the first call."""
    from jax import lax

    run = jax_common.meta_gradient(workload, dtype, unroll, lax.map, product=product)
    return lambda: np.asarray(run())


IMPLEMENTATION = Implementation(
    "jax-map",
    "JAX, jit + map",
    ("jax",),
    choices,
    prepare,
    first_use=jax_common.first_use,
    methods=EVERY_METHOD,
)
