"""Do implementations compute the same gradient? Checked before anything is timed.

The error is relative, in the 2-norm. There are two checks:
- in float64 on two tasks, with the code that is timed, against refmaml on the reference
  kernels. The limit 1e-8 leaves room for rounding that grows along the inner steps; a
  mistake shows above 1e-3.
- in float32 on all tasks, of the very call that is timed, against refmaml in float64. A
  pre-activation that rounding moves across 0 changes a task's gradient by up to several
  per cent, so the limit is 0.05. The first-order gradient, the smallest of the
  well-known mistakes, is 0.15 off or more on every net with convolutions here. A net
  without batch-norm, which amplifies rounding, has the limit 1e-4.
"""

import numpy as np

from refmaml.layers import BatchNorm2d
from refmaml.layers.walk import all_layers

FEW_TASKS = 2
FLOAT64_LIMIT, FLOAT32_LIMIT, FLOAT32_LIMIT_WITHOUT_NORM = 1e-8, 0.05, 1e-4


def distance(value, reference):
    """|value - reference| / |reference|.

    Infinite for arrays of different shapes and for numbers that are not finite.
    """
    if value.shape != reference.shape or not np.isfinite(value).all():
        return np.inf
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def disagreement(error, dtype, limit):
    """The reason to refuse a gradient with this error, or None."""
    if error <= limit:
        return None
    return f"its gradient in {dtype} is {error:.1e} off, expected at most {limit:.0e}"


def float32_limit(workload):
    """The largest error that a gradient in float32 may have."""
    has_norm = any(isinstance(layer, BatchNorm2d) for layer in all_layers(workload.net().layers))
    return FLOAT32_LIMIT if has_norm else FLOAT32_LIMIT_WITHOUT_NORM


def few_tasks(workload):
    """The workload with few enough tasks for the reference kernels to be fast."""
    return workload.with_tasks(min(FEW_TASKS, workload.tasks))


def reference_gradient(workload):
    """The mean meta-gradient (P,) by refmaml's reference kernels in float64."""
    return workload.method.meta_gradient(
        workload.net(), workload.theta(np.float64), workload.batch(np.float64)
    ).grad
