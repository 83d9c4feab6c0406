"""JAX: jit of vmap over chunks of tasks."""

from functools import partial

import numpy as np

from refmaml.bench.implementations import jax_common
from refmaml.bench.implementations.implementation import EVERY_METHOD, Implementation, chunks


def choices(workload):
    return {
        "chunk": chunks(workload),
        "unroll": jax_common.unrolls(workload),
        "product": jax_common.products(workload),
    }


def prepare(workload, dtype, chunk, unroll, product):
    """All tasks at once, or lax.map over chunks of them. The first call compiles it."""
    import jax

    over_tasks = jax_common.vmapped
    if chunk < workload.tasks:
        over_tasks = partial(jax.lax.map, batch_size=chunk)
    run = jax_common.meta_gradient(workload, dtype, unroll, over_tasks, product=product)
    return lambda: np.asarray(run())


IMPLEMENTATION = Implementation(
    "jax-vmap",
    "JAX, jit + vmap",
    ("jax",),
    choices,
    prepare,
    first_use=jax_common.first_use,
    methods=EVERY_METHOD,
)
