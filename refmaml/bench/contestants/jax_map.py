"""JAX: jit of lax.map over tasks, one task at a time."""

import numpy as np

from refmaml.autodiff import jax_formulas
from refmaml.bench.contestants.contestant import Contestant


def choices(workload):
    return {"unroll": jax_formulas.unrolls(workload)}


def prepare(workload, dtype, unroll):
    """Compiled by the first call."""
    from jax import lax

    run = jax_formulas.meta_gradient(workload, dtype, unroll, lax.map)
    return lambda: np.asarray(run())


CONTESTANT = Contestant(
    "jax-map", "JAX, jit + map", ("jax",), choices, prepare, first_use=jax_formulas.first_use
)
