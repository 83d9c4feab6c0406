"""JAX: jit of vmap over chunks of tasks."""

from functools import partial

import numpy as np

from refmaml.autodiff import jax_formulas
from refmaml.bench.contestants.contestant import Contestant, chunks


def choices(workload):
    return {"chunk": chunks(workload), "unroll": jax_formulas.unrolls(workload)}


def prepare(workload, dtype, chunk, unroll):
    """Compiled by the first call; all tasks at once, or lax.map over batches of them."""
    import jax

    over_tasks = (
        partial(jax.lax.map, batch_size=chunk) if chunk < workload.tasks else jax_formulas.vmapped
    )
    run = jax_formulas.meta_gradient(workload, dtype, unroll, over_tasks)
    return lambda: np.asarray(run())


CONTESTANT = Contestant(
    "jax-vmap", "JAX, jit + vmap", ("jax",), choices, prepare, first_use=jax_formulas.first_use
)
