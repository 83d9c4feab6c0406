"""Second derivatives of a meta-objective along a direction."""

from typing import Any

import numpy as np

from refmaml.arrays import described, expect_array
from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.meta_gradient import check_meta


def hvp(method: Any, net: Any, meta: np.ndarray, batch: Batch, v: np.ndarray) -> np.ndarray:
    """H v (M,): H = d^2 M / dmeta^2, M = (1/T) sum_t M_t(meta) over the batch's tasks.

    method  one with `task_products`, the rows H_t v (T, M)
    v       a direction like meta (M,)
    Raises ArgumentError for another v, and for weights of tasks; NonFiniteError.
    """
    batch = check_meta(method, net, meta, batch, None)
    expect(batch.weights is None, "batch", "no weights of tasks", lambda: described(batch.weights))
    expect_array("v", v, net.kernels)
    same = v.shape == meta.shape and v.dtype == meta.dtype
    expect(same, "v", f"a direction like meta, {described(meta)}", lambda: described(v))

    def work(net: Any, meta: Array, *arrays: Array) -> tuple[list, dict]:
        rows = method.task_products(net, meta, Batch.unchecked(*arrays[:4]), arrays[4])
        return [rows.sum(axis=0) / len(rows)], {}

    return net.run(work, meta, *batch.arrays, v)[0][0]
