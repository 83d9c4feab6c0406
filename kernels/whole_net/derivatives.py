"""Loss, gradient, and products with the Hessian and the Gauss-Newton matrix of one task: the walks with the loss in their middle.

All parameters, gradients and directions are in the order of filter_order.py.
"""

import numpy as np

from refmaml.kernels.cross_entropy import cpu as cross_entropy
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.squared_error import cpu as squared_error
from refmaml.kernels.whole_net import program as at
from refmaml.kernels.whole_net.operations import CROSS_ENTROPY
from refmaml.kernels.whole_net.passes import backward, forward, given, r_backward, r_forward


@inlined()
def outputs(table, column, work, N):
    """The last value (or, by the column, its adjoint) as (N, D)."""
    last = table[len(table) - 1]
    return given(last, last[column], work, N).reshape((N, last[at.O]))


@inner()
def keep_outputs(table, z, work, N):
    """z (N, D) from the last value."""
    out = outputs(table, at.Y, work, N)
    for n in range(N):
        for d in range(out.shape[1]):
            z[n, d] = out[n, d]


@inlined()
def loss_and_adjoint(kind, scale, z, labels, targets, dz):
    """The loss of one task; fills dz. z and dz (N, D)."""
    if kind == CROSS_ENTROPY:
        loss = cross_entropy.task_forward(dz, z, labels, scale)
        cross_entropy.task_backward(dz, dz, labels, scale)
    else:
        loss = squared_error.task_forward(dz, z, targets, scale)
        squared_error.task_backward(dz, dz, scale)
    return loss


@inlined()
def r_adjoint(kind, scale, z, labels, rz, rdz):
    """rdz = (d^2 loss / dz^2) rz."""
    if kind == CROSS_ENTROPY:
        p = np.empty_like(z)
        cross_entropy.task_forward(p, z, labels, scale)
        cross_entropy.task_r_backward(rdz, p, rz, scale)
    else:
        squared_error.task_backward(rdz, rz, scale)


@inner()
def primal(table, reals, lists, N, kind, scale, x, labels, targets, w, turned, grad, work, places):
    """The loss; fills the gradient, and in `work` what table has a place for."""
    forward((table, reals, lists, N, x, w, work, places))
    loss = loss_and_adjoint(
        kind, scale, outputs(table, at.Y, work, N), labels, targets, outputs(table, at.DY, work, N)
    )
    backward((table, table, reals, lists, N, x, w, turned, grad, work, work, places))
    return loss


@inner()
def r_outputs(table, rtable, reals, lists, N, kind, scale, x, labels, w, v, work, rwork, places):
    """The tangent of the outputs along v, and of their adjoint."""
    r_forward((table, rtable, reals, lists, N, x, w, v, work, rwork, places))
    r_adjoint(
        kind,
        scale,
        outputs(table, at.Y, work, N),
        labels,
        outputs(rtable, at.Y, rwork, N),
        outputs(rtable, at.DY, rwork, N),
    )


@inner()
def hessian_product(
    table,
    rtable,
    reals,
    lists,
    N,
    kind,
    scale,
    x,
    labels,
    w,
    turned,
    v,
    rturned,
    product,
    work,
    rwork,
    places,
):
    """Fills H v, from what `primal` left in work."""
    r_outputs(table, rtable, reals, lists, N, kind, scale, x, labels, w, v, work, rwork, places)
    r_backward(
        (table, rtable, reals, lists, N, x, w, v, turned, rturned, product, work, rwork, places)
    )


@inner()
def gauss_newton_product(
    table,
    rtable,
    reals,
    lists,
    N,
    kind,
    scale,
    x,
    labels,
    w,
    turned,
    v,
    product,
    work,
    rwork,
    places,
):
    """Fills G v: the gradient's own way back, from the tangent of the outputs' adjoint."""
    r_outputs(table, rtable, reals, lists, N, kind, scale, x, labels, w, v, work, rwork, places)
    backward((table, rtable, reals, lists, N, x, w, turned, product, work, rwork, places))
