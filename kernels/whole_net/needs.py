"""Which compiled functions a call of the whole-net kernel needs.

External functions on demand are listed here, those that they call follow from them.
"""

from refmaml.kernels.activation import cpu as activation
from refmaml.kernels.conv2d import winograd
from refmaml.kernels.conv2d.algorithms import winograd_for_many
from refmaml.kernels.group_norm import task_passes
from refmaml.kernels.norm_act_pool import cpu as norm_act_pool
from refmaml.kernels.norm_act_pool import r_passes
from refmaml.kernels.whole_net import (
    batch_norm,
    cpu,
    derivatives,
    displacement,
    group_norm,
    grouped,
    images,
    implicit,
    inner_loop,
    operations,
    residual,
)
from refmaml.kernels.whole_net.graph import nodes_of
from refmaml.kernels.whole_net.rule_numbers import PLAIN
from refmaml.kernels.whole_net.update_rules import pull_back, take_step

# (forward, backward, r_forward, r_backward) of operations that are not products.
UNPOOLED = (
    norm_act_pool.forward_unpooled,
    norm_act_pool.backward_unpooled,
    r_passes.r_forward_unpooled,
    r_passes.r_backward_unpooled,
)
POOLED = (
    norm_act_pool.forward_pooled,
    norm_act_pool.backward_pooled,
    r_passes.r_forward_pooled,
    r_passes.r_backward_pooled,
)
PASSES = {
    operations.Activate: (
        activation.forward_block,
        activation.derivative_block,
        activation.derivative_block,
        activation.r_derivative_block,
    ),
    operations.MaxPool: (images.max_pool, images.scatter, images.gather, images.scatter),
    operations.GroupNorm: (
        task_passes.forward,
        task_passes.backward,
        task_passes.r_forward,
        task_passes.r_backward,
    ),
    operations.Average: (images.average, images.average_transposed) * 2,
    operations.Flatten: (images.flatten, images.flatten_transposed) * 2,
}
LOSSES = {
    operations.CROSS_ENTROPY: (
        derivatives.cross_entropy_adjoint,
        derivatives.cross_entropy_r_adjoint,
    ),
    operations.MEAN_OF_SQUARES: (
        derivatives.squared_error_adjoint,
        derivatives.squared_error_r_adjoint,
    ),
}
# What calls these in a pass, and finds their numbers.
WRAPPERS = {
    operations.NormActPool: (
        batch_norm.forward,
        batch_norm.backward,
        batch_norm.r_forward,
        batch_norm.r_backward,
    ),
    operations.GroupNorm: (
        group_norm.forward,
        group_norm.backward,
        group_norm.r_forward,
        group_norm.r_backward,
    ),
}
FIRST, ALL = slice(0, 2), slice(0, 4)


def needed(net_operations, loss, what, order=0, kind=PLAIN):
    """The External functions of `what` (cpu.py), for the update rule `kind`."""
    if what == cpu.PRIMAL:
        return [cpu.run.external, *of_passes(net_operations, loss, FIRST, cpu.primal_tasks)]
    if what == cpu.HESSIAN:
        return [cpu.run.external, *of_passes(net_operations, loss, ALL, cpu.hessian_tasks)]
    if what == cpu.GAUSS_NEWTON:
        return [cpu.run.external, *of_passes(net_operations, loss, ALL, cpu.gauss_newton_tasks)]
    entries = [inner_loop.unrolled] + [inner_loop.adjoint] * (order > 1)
    if kind != PLAIN:
        entries += [take_step] + [pull_back] * (order > 1)
    passes = ALL if order > 1 else FIRST
    return [cpu.run.external, *of_passes(net_operations, loss, passes, *entries)]


def needed_implicit(net_operations, loss, kind):
    """The External functions of iMAML as one kernel, for the update rule `kind`."""
    rule = [take_step] * (kind != PLAIN)
    return of_passes(net_operations, loss, ALL, implicit.implicit, *rule)


def needed_displacement(net_operations, loss, kind):
    """The External functions of Reptile as one kernel, for the update rule `kind`."""
    rule = [take_step] * (kind != PLAIN)
    return of_passes(net_operations, loss, FIRST, displacement.displacement, *rule)


def of_passes(net_operations, loss, passes, *entries):
    """The External functions of these entries and of the passes of all operations."""
    net_operations = [node.op for node in nodes_of(net_operations)]
    calls = [call for op in net_operations for call in passes_of(op)[passes]]
    calls += [call for op in net_operations for call in WRAPPERS.get(type(op), ())[passes]]
    calls += LOSSES[loss][: 2 if passes == ALL else 1]
    calls += [call for op in net_operations for call in besides_passes(op)]
    return list(dict.fromkeys(call.external for call in (*entries, *calls)))


def passes_of(op):
    """The four passes of an operation; none of a product, whose are never on demand."""
    if isinstance(op, operations.NormActPool):
        return UNPOOLED if op.window == (1, 1) else POOLED
    return PASSES.get(type(op), ())


def besides_passes(op):
    """What an operation calls in every pass, or for the order of its parameters."""
    if isinstance(op, operations.GroupNorm):
        return group_norm.to_rows, group_norm.from_rows
    if isinstance(op, operations.Convolution):
        return convolutions(op)
    if isinstance(op, operations.Sum | operations.Fork):
        return residual.add, residual.copy
    return ()


def convolutions(op):
    """The products of a convolution that are on demand."""
    if op.groups > 1:
        return (grouped.product,)
    shape = (op.C, op.H, op.W, op.O, op.Ho, op.Wo)
    if winograd_for_many(*shape, op.kernel, op.stride, op.start, op.dilation):
        return winograd.images_product, winograd.filters_product
    return ()
