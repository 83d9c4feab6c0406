"""iMAML and Reptile as one kernel for each task, where the net and the method allow.

kernels/whole_net/implicit.py and displacement.py are the kernels. The methods' own
loops, with one call per pass over all tasks, are the reference; they run where every
step is to be traced, where there is no kernel, and where numbers overflowed: the loop
then names the first step and layer.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from refmaml.execution.kernel_rules import adam_of_reptile, in_one_kernel
from refmaml.kernels.whole_net import solver_numbers as at
from refmaml.kernels.whole_net.rule_numbers import C2
from refmaml.methods.conjugate_gradients import Solution
from refmaml.methods.controlled_descent import GROW, ROUNDING, SHRINK
from refmaml.methods.imaml import IMAML, SOLVERS
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.methods.newton_cg import ARMIJO, CG_TOL
from refmaml.methods.reptile import Reptile

# What a subclass may not change, as the kernel does not call it.
OWN = {
    IMAML: ("task_gradients", "solve", "mask"),
    Reptile: ("task_gradients", "descend", "adam_step", "support_sets", "inner_gradient"),
}


def as_method_kernel(method):
    """method.task_gradients as one kernel: for iMAML and Reptile; else None."""
    for kind, make in ((IMAML, ImplicitKernel), (Reptile, DisplacementKernel)):
        if isinstance(method, kind):
            names = OWN[kind]
            own = all(getattr(type(method), name) is getattr(kind, name) for name in names)
            rule = rule_of(method) if own else None
            return rule and make(method, rule)
    return None


def rule_of(method):
    """The update rule for the kernel; None where it has none."""
    if isinstance(method, Reptile) and method.optimizer == "adam":
        return adam_of_reptile(method)
    return in_one_kernel(method)


def calls():
    """The kernels' calls. The module needs Numba, as every net that has a kernel."""
    return import_module("refmaml.kernels.whole_net.method_calls")


def sets_for(net, meta, batch):
    """(kernel, support, query), each set (x, y); None where there is no kernel."""
    shape = batch.x_support.shape[2:]
    kernel = net.whole_net(shape, np.result_type(meta.dtype, batch.x_support.dtype))
    if kernel is None or shape != batch.x_query.shape[2:]:
        return None
    for x, y in batch.sets:
        net.check(meta[None, : net.num_params], x, y)
    return kernel, *batch.sets


def scale_of(net, x):
    """The factor of the loss on sets like x (T, N, ...)."""
    return net.loss_function.scale(x.shape[1], net.output_shape(x.shape[2:])[0])


@dataclass(frozen=True)
class MethodKernel:
    """(net, meta, batch, trace) -> TaskGradients; without a kernel by the method."""

    method: Any
    rule: Any

    def __call__(self, net, meta, batch, trace):
        found = None if trace else sets_for(net, meta, batch)
        result = found and self.by_kernel(net, meta, *found)
        return result or self.method.task_gradients(net, meta, batch, trace)


class ImplicitKernel(MethodKernel):
    """iMAML."""

    def by_kernel(self, net, theta, kernel, support, query):
        """The TaskGradients; None where numbers overflowed."""
        method, solver = self.method, SOLVERS.index(self.method.solver)
        settings = solver, method.inner_steps, method.cg_steps, self.numbers(theta)
        mask, sets = method.mask(net, theta), [(*s, scale_of(net, s[0])) for s in (support, query)]
        out = calls().implicit_gradients(kernel, theta, mask, *sets, settings, self.rule)
        if not (out.finite.all() and np.isfinite(out.loss).all()):
            return None
        status, residuals = out.status.astype(np.int8), out.residuals[:, [at.BEFORE, at.AFTER]].T
        cg = Solution(out.grad, residuals, status, None)
        report = method.report(np, cg, out.residuals[:, at.INNER])
        accuracy = net.loss_function.accuracy(out.z, query[1])
        return TaskGradients(out.loss, accuracy, out.grad, {}, report)

    def numbers(self, theta):
        """The kernel's `numbers`: solver_numbers.py."""
        method, numbers = self.method, np.zeros(at.COUNT)
        given = {
            at.HALF: 0.5, at.ONE: 1, at.STRENGTH: method.regularization, at.RATE: method.inner_lr,
            at.INNER_TOL: method.inner_tol, at.CG_TOL: method.cg_tol, at.NEWTON_TOL: CG_TOL,
            at.GROW: GROW, at.SHRINK: SHRINK, at.ARMIJO: ARMIJO,
            at.ROUNDING: ROUNDING * np.finfo(theta.dtype).eps,
        }  # fmt: skip
        numbers[list(given)] = list(given.values())
        return numbers


class DisplacementKernel(MethodKernel):
    """Reptile."""

    def by_kernel(self, net, meta, kernel, support, query):
        """The TaskGradients; None where numbers overflowed, and where mini-batches
        differ in size.
        """
        method, P, carried = self.method, net.num_params, self.method.moment == "carried"
        mini = mini_batches(method, net, *support)
        if mini is None:
            return None
        (x, y), (xq, yq) = mini, query
        (theta,), rates = method.start(net, meta[:P])
        rule = adam_of_reptile(method, meta[2 * P]) if carried else self.rule
        out = calls().displacements(
            kernel, theta, method.adapting(net, theta), rates, (x, y, scale_of(net, x[:, 0])),
            (xq, yq, scale_of(net, xq)), method.anchor, rule, meta[P : 2 * P] if carried else None,
        )  # fmt: skip
        if not (out.finite.all() and np.isfinite(out.loss).all()):
            return None
        grad = out.grad
        if carried:
            n = meta[2 * P] - rule.numbers[-1, C2].astype(meta.dtype)
            grad = np.concatenate([grad, out.moments, np.full((len(grad), 1), n)], axis=1)
        return TaskGradients(out.loss, net.loss_function.accuracy(out.z, yq), grad)


def mini_batches(method, net, x, y):
    """(x, y) (T, sets, N, ...): what the steps see; None where sizes differ."""
    if method.inner_batch is None:
        return x[:, None], y[:, None]
    places = method.places(net, x.shape[1])
    if len({len(p) for p in places}) > 1:
        return None
    taken = np.stack(places)
    return x[:, taken], y[:, taken]
