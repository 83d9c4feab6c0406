"""A net, or a whole inner loop with its adjoint, as one CPU kernel.

The methods do not know: for MAML and first-order MAML, and for iMAML and Reptile
(method_kernels.py), `as_one_kernel` gives a function with the result of
method.task_gradients, which `Sequential.run` puts in its place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.execution.kernel_rules import in_one_kernel
from refmaml.execution.method_kernels import as_method_kernel
from refmaml.methods.first_order_maml import FirstOrderMAML
from refmaml.methods.maml import MAML
from refmaml.methods.meta_gradient import TaskGradients

ORDERS = {MAML.task_gradients: 2, FirstOrderMAML.task_gradients: 1}  # of the derivative


@dataclass(frozen=True)
class KernelPrimal:
    """A pass that a whole-net kernel computed: as Primal, but the kernel owns `kept`.

    gradient_is_finite  (T,) bools, which the kernel found on the way
    """

    kernel: Any
    kept: Any
    outputs: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    grad: np.ndarray
    gradient_is_finite: np.ndarray


def as_one_kernel(method):
    """method.task_gradients as one kernel where that exists, else None."""
    order = ORDERS.get(type(method).task_gradients)
    if order is None:
        return as_method_kernel(method)
    if method.anchor or method.inner_batch is not None:
        return None
    rule = in_one_kernel(method)
    return rule and OneKernel(method, order, rule)


@dataclass(frozen=True)
class OneKernel:
    """(net, meta, batch, trace) -> TaskGradients, by one kernel for each task.

    Step by step instead where every step is to be traced, where the net has no such
    kernel, or where numbers overflowed: the loop over steps then names the first step
    and layer.
    """

    method: Any
    order: int
    rule: Any

    def __call__(self, net, meta, batch, trace):
        after = None
        if not trace:
            phi, rates = self.method.start(net, meta)
            recompute = getattr(self.method, "recompute", False)
            after = net.unrolled(phi, rates, batch, self.order, recompute, self.rule)
        if after is None:
            return self.method.task_gradients(net, meta, batch, trace)
        return TaskGradients(after.loss, after.accuracy, after.grad)
