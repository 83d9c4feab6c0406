"""Whether contestants compute the same gradient, asked before anything is timed.

Agreement, relative in the 2-norm, is asked for twice:
- in float64 on two tasks, by the very code that is timed, against refmaml on the reference kernels. 1e-8 leaves rounding room to grow
  along the inner steps; a mistake shows above 1e-3.
- in float32 on all tasks, of the very run that is timed, against refmaml in float64. A pre-activation that rounding pushes across 0 moves a
  task's gradient by up to some per cent, so 0.05 is asked for; the first-order gradient, the smallest of the well-known mistakes, is
  0.15 off or more on every net with convolutions here. Where the net has no batch-norm to blow rounding up, 1e-4.
"""

import numpy as np

from refmaml.layers import BatchNorm2d

FEW, EXACT, ROUNDED, ROUNDED_SMOOTH = 2, 1e-8, 0.05, 1e-4


def distance(value, reference):
    """|value - reference| / |reference|; infinite where shapes differ or a number is not finite."""
    if value.shape != reference.shape or not np.isfinite(value).all():
        return np.inf
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))


def disagreement(error, dtype, limit):
    """The reason to refuse a gradient that is `error` off, or None."""
    if error <= limit:
        return None
    return f"its gradient in {dtype} is {error:.1e} off, expected at most {limit:.0e}"


def rounded_limit(workload):
    """How far a gradient in float32 may be off."""
    norms = any(isinstance(layer, BatchNorm2d) for layer in workload.net().layers)
    return ROUNDED if norms else ROUNDED_SMOOTH


def few_tasks(workload):
    """The workload on so few tasks that the reference kernels need no time."""
    return workload.with_tasks(min(FEW, workload.tasks))


def reference_gradient(workload):
    """By refmaml's reference kernels in float64."""
    return workload.method.meta_gradient(
        workload.net(), workload.theta(np.float64), workload.batch(np.float64)
    ).grad
