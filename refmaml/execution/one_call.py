"""The mean over tasks of a small net, by one call of the whole-net kernel.

A meta-gradient of a net with some thousand parameters takes microseconds, and Python
took ten times as long to prepare it. What depends on the method and on the kinds of the
arrays alone is prepared once and kept on the net.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from refmaml.errors import ArgumentError
from refmaml.execution.one_kernel import ORDERS, as_one_kernel
from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.meta_gradient import MeanOverTasks

MANY = 1 << 60  # tasks: no limit
MOST = 8  # calls that a net keeps prepared; each holds the memory of one task's passes


class KernelMean(MeanOverTasks):
    """A MeanOverTasks whose task_gradients is a OneKernel."""

    def __call__(self, net, meta, *arrays):
        found = one_call(net, self, meta, *arrays)
        return super().__call__(net, meta, *arrays) if found is None else found


def kind_of(a):
    """What a check of an array depends on, but for its values."""
    return type(a), getattr(a, "shape", None), getattr(a, "dtype", None)


def one_call(net, work, meta, *sets):
    """(vectors, figures) of work(net, meta, *sets) by one call of the kernel, or None.

    sets   x_support, y_support, x_query, y_query; with weights the result is None

    It is None where there is no such call, and where a number is not finite: the
    ordinary way then finds its place. It is None, too, until the ordinary way has
    checked arrays of these kinds.
    """
    method, kind = work.method, type(work)
    ordinary = kind is MeanOverTasks and work.task_gradients == method.task_gradients
    if not (ordinary or kind is KernelMean) or work.trace or len(sets) != 4:
        return None
    if (work.chunk or MANY) < len(sets[0]):
        return None
    key = tuple([(type(a), a.shape, a.dtype) for a in (meta, *sets)])
    call = net.calls.get(key)
    if call is None or not call.is_of(method):
        if not all((kind_of(meta[None]), *key[i : i + 2]) in net.checked for i in (1, 3)):
            return None
        if len(net.calls) >= MOST:
            net.calls.clear()
        call = net.calls[key] = OneCall.of(net, work, meta, sets)
    return call.run(net, meta, sets) if call.kernel else None


@dataclass(frozen=True)
class OneCall:
    """The mean over tasks for arrays of one kind.

    method   whose mean it is
    formula  its task_gradients, which the kernel replaces
    outputs  the shape of one example's outputs
    valued   whether targets have values that are to be checked, as labels have
    kernel   a TaskMean, or None where there is none
    """

    method: Any
    formula: Any
    outputs: tuple
    valued: bool
    kernel: Any

    @classmethod
    def of(cls, net, work, meta, sets):
        """The call for the kinds of these arrays."""
        method, outputs = work.method, net.output_shape(sets[0].shape[2:])
        valued = len(net.loss_function.extremes(sets[1])) > 0
        kernel = task_mean(net, work, meta, sets, outputs[0])
        return cls(method, type(method).task_gradients, outputs, valued, kernel)

    def is_of(self, method):
        """Whether it is for this method, with the formula that the method has now."""
        return method is self.method and type(method).task_gradients is self.formula

    def run(self, net, meta, sets):
        """(vectors, figures), or None."""
        loss_function = net.loss_function
        if self.valued and not self.values_fit(loss_function, sets):
            return None
        result = self.kernel(meta, *sets)
        if result is None:
            return None
        mean, loss, z = result
        if not isfinite(sum(loss.tolist())):
            return None
        accuracy = loss_function.accuracy(z, sets[3])
        figures = {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}
        return [mean], figures

    def values_fit(self, loss_function, sets):
        """Whether the targets' values fit. The ordinary way raises the error."""
        try:
            for y in sets[1::2]:
                loss_function.check_values(self.outputs, loss_function.extremes(y))
        except ArgumentError:
            return False
        return True


def task_mean(net, work, meta, sets, D):
    """The TaskMean of a work for arrays of these kinds, with D outputs, or None."""
    method, x, query, T = work.method, sets[0], sets[2], len(sets[0])
    order, shape, dtype = ORDERS.get(type(method).task_gradients), x.shape[2:], meta.dtype
    one_kernel = order and as_one_kernel(method)
    kernel = net.whole_net(shape, dtype) if one_kernel and shape == query.shape[2:] else None
    if kernel is None or type(method).start is not InnerLoop.start:
        return None
    if {dtype} != {x.dtype, query.dtype}:
        return None
    _, rates = method.start(net, meta)
    slots = len(rates) if order > 1 and not getattr(method, "recompute", False) else 1
    given = [(a.shape[1], net.loss_function.scale(a.shape[1], D)) for a in (x, query)]
    return kernel.task_mean(np.stack(rates), T, *given, order, slots, one_kernel.rule)
