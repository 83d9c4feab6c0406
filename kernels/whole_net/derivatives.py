"""Loss, gradient, and products with the Hessian and the Gauss-Newton matrix of one
task: the passes with the loss between them.

All parameters, gradients and directions are in product order (filter_order.py); wt and
vt are w and v with transposed filters.
"""

from typing import NamedTuple

import numpy as np

from refmaml.kernels.cross_entropy import cpu as cross_entropy
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import matrix, row
from refmaml.kernels.squared_error import cpu as squared_error
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net.operations import CROSS_ENTROPY
from refmaml.kernels.whole_net.passes import backward, forward, output_of, r_backward, r_forward


class Examples(NamedTuple):
    """The examples of all tasks, and the net's program for so many of them.

    table, rtable   the program, and the lean one of its tangents (program.py)
    reals, lists    the program's real numbers and offset lists
    N               examples per task
    loss, scale     CROSS_ENTROPY or MEAN_OF_SQUARES, and its factor
    x               (T, N pixels channels)
    labels          (T, N) of cross-entropy; one number otherwise
    targets         (T, N, D) of squared errors; one number otherwise
    """

    table: np.ndarray
    rtable: np.ndarray
    reals: np.ndarray
    lists: np.ndarray
    N: int
    loss: int
    scale: float
    x: np.ndarray
    labels: np.ndarray
    targets: np.ndarray


@inlined()
def outputs(table, column, work, N):
    """The last value (or, by the column, its adjoint) as (N, D)."""
    last = row(table, len(table) - 1)
    return matrix(output_of(last, last[column], work, N), N, last[at.O])


@external("int64[:,::1], F[:,::1], F[::1], int64", allocates=False)
def copy_outputs(table, z, work, N):
    """Fills z (N, D) with the last value."""
    out = outputs(table, at.Y, work, N)
    for n in range(N):
        for d in range(out.shape[1]):
            z[n, d] = out[n, d]


@external("F[::1], F[:,::1], F[:,::1], int64[::1], F", on_demand=True)
def cross_entropy_adjoint(loss, dz, z, labels, scale):
    """Fills dz, and loss (1,)."""
    loss[0] = cross_entropy.task_forward(dz, z, labels, scale)
    cross_entropy.task_backward(dz, dz, labels, scale)


@external("F[::1], F[:,::1], F[:,::1], F[:,::1], F", on_demand=True, allocates=False)
def squared_error_adjoint(loss, dz, z, target, scale):
    """Fills dz, and loss (1,)."""
    loss[0] = squared_error.task_forward(dz, z, target, scale)
    squared_error.task_backward(dz, dz, scale)


@external("F[:,::1], F[:,::1], F[:,::1], int64[::1], F", on_demand=True)
def cross_entropy_r_adjoint(rdz, z, rz, labels, scale):
    """Fills rdz = (d^2 loss / dz^2) rz."""
    p = np.empty_like(z)
    cross_entropy.task_forward(p, z, labels, scale)
    cross_entropy.task_r_backward(rdz, p, rz, scale)


@external("F[:,::1], F[:,::1], F", on_demand=True, allocates=False)
def squared_error_r_adjoint(rdz, rz, scale):
    """Fills rdz = (d^2 loss / dz^2) rz."""
    squared_error.task_backward(rdz, rz, scale)


@inlined()
def r_adjoint(e, t, z, rz, rdz):
    """Fills rdz of task t."""
    if e.loss == CROSS_ENTROPY:
        cross_entropy_r_adjoint(rdz, z, rz, row(e.labels, t % len(e.labels)), e.scale)
    else:
        squared_error_r_adjoint(rdz, rz, e.scale)


@external(
    "int64[:,::1], F[:,::1], int64[::1], int64, int64, F, F[::1], int64[::1], F[:,::1], "
    "F[::1], F[::1], F[::1], F[::1], F[::1], int16[::1]",
    allocates=False,
)
def primal_of_task(
    table, reals, lists, N, loss_kind, scale, x, labels, target, loss, w, wt, grad, work, winners
):
    """Fills loss (1,), the gradient, and `work` as the table plans it."""
    forward(table, reals, lists, N, x, w, work, winners)
    z, dz = outputs(table, at.Y, work, N), outputs(table, at.DY, work, N)
    if loss_kind == CROSS_ENTROPY:
        cross_entropy_adjoint(loss, dz, z, labels, scale)
    else:
        squared_error_adjoint(loss, dz, z, target, scale)
    backward(table, table, reals, lists, N, x, w, wt, grad, work, work, winners)


# fmt: off
@inlined()
def primal(e, t, loss, w, wt, grad, work, winners):
    """`primal_of_task` of task t."""
    primal_of_task(e.table, e.reals, e.lists, e.N, e.loss, e.scale, row(e.x, t),
                   row(e.labels, t % len(e.labels)), row(e.targets, t % len(e.targets)),
                   loss, w, wt, grad, work, winners)
# fmt: on


@inlined()
def r_outputs(e, t, w, v, work, rwork, winners):
    """Fills the tangent of the outputs along v, and of their adjoint."""
    x = row(e.x, t)
    r_forward(e.table, e.rtable, e.reals, e.lists, e.N, x, w, v, work, rwork, winners)
    z = outputs(e.table, at.Y, work, e.N)
    rz, rdz = outputs(e.rtable, at.Y, rwork, e.N), outputs(e.rtable, at.DY, rwork, e.N)
    r_adjoint(e, t, z, rz, rdz)


@inlined()
def hessian_product(e, t, w, wt, v, vt, product, work, rwork, winners):
    """Fills H v of task t, from what `primal` left in work."""
    r_outputs(e, t, w, v, work, rwork, winners)
    x, N = row(e.x, t), e.N
    r_backward(
        e.table, e.rtable, e.reals, e.lists, N, x, w, v, wt, vt, product, work, rwork, winners
    )


@inlined()
def gauss_newton_product(e, t, w, wt, v, product, work, rwork, winners):
    """Fills G v of task t: the backward pass from the tangent of the
    outputs' adjoint.
    """
    r_outputs(e, t, w, v, work, rwork, winners)
    x, N = row(e.x, t), e.N
    backward(e.table, e.rtable, e.reals, e.lists, N, x, w, wt, product, work, rwork, winners)
