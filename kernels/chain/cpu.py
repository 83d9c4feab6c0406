"""A whole chain on a CPU, task by task: loss and gradient in one call, a Hessian-vector product in another.

The layers of a net, each a kernel of its own over all tasks, send every array to memory and back, and cost a call each. Here a thread takes
a task from the first operation to the last, so that what one writes the next finds in the second-level cache; and a net so small
that the calls took longer than the arithmetic needs one. The chain of single kernels remains the reference.
"""
import numpy as np

from refmaml.kernels.chain import program as at
from refmaml.kernels.chain.operations import CROSS_ENTROPY
from refmaml.kernels.chain.products import order_all
from refmaml.kernels.chain.walks import backward, forward, given, r_backward, r_forward
from refmaml.kernels.cross_entropy import cpu as cross_entropy
from refmaml.kernels.inner import inlined
from refmaml.kernels.squared_error import cpu as squared_error


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


@inlined()
def all_finite(a):
    """Whether every number is: a - a is 0 then, and NaN otherwise."""
    lanes, whole = np.zeros(64, a.dtype), len(a) // 64 * 64
    for i in range(0, whole, 64):
        for j in range(64):
            lanes[j] += a[i + j] - a[i + j]
    for i in range(whole, len(a)):
        lanes[0] += a[i] - a[i]
    total = lanes.sum()
    return total == total


@inlined()
def outputs(table, column, work, N):
    """The last value (or, by the column, its adjoint) as (N, D)."""
    last = table[len(table) - 1]
    return given(last, last[column], work, N).reshape((N, last[at.O]))


def primal_tasks(lo, hi, table, reals, lists, N, kind, scale, x, labels, targets, w, z, loss, finite, grad, work, places, filters, shared):
    """Outputs, loss and gradient of tasks lo .. hi, and whether all of the gradient is finite; what R-passes need stays in `work` and
    `places` where those have a row for each task."""
    for t in range(lo, hi):
        own, own_places, theta = work[t % len(work)], places[t % len(places)], w[t % len(w)]
        forward(table, reals, lists, N, x[t], theta, own, own_places, filters, shared)
        out = outputs(table, at.Y, own, N)
        for n in range(N):
            for d in range(out.shape[1]):
                z[t, n, d] = out[n, d]
        loss[t] = loss_and_adjoint(kind, scale, out, labels[t % len(labels)], targets[t % len(targets)], outputs(table, at.DY, own, N))
        backward(table, table, reals, lists, N, x[t], theta, grad[t], own, own, own_places, filters, shared)
        finite[t] = all_finite(grad[t])


@inlined()
def r_outputs(table, rtable, reals, lists, N, kind, scale, x, labels, w, v, work, rwork, places, filters, shared, room):
    """The tangent of the outputs of one task, and of their adjoint."""
    r_forward(table, rtable, reals, lists, N, x, w, v, work, rwork, places, filters, shared, room)
    r_adjoint(kind, scale, outputs(table, at.Y, work, N), labels, outputs(rtable, at.Y, rwork, N), outputs(rtable, at.DY, rwork, N))


def hessian_tasks(lo, hi, table, rtable, reals, lists, N, kind, scale, x, labels, w, v, grad, work, rwork, places, filters, shared, room):
    """H v of tasks lo .. hi, after `primal_tasks` left its values and adjoints in work."""
    for t in range(lo, hi):
        own, own_places, theta, direction = work[t], places[t], w[t % len(w)], v[t % len(v)]
        r_outputs(table, rtable, reals, lists, N, kind, scale, x[t], labels[t % len(labels)], theta, direction, own, rwork, own_places,
                  filters, shared, room)
        r_backward(table, rtable, reals, lists, N, x[t], theta, direction, grad[t], own, rwork, own_places, filters, shared, room)


def gauss_newton_tasks(lo, hi, table, rtable, reals, lists, N, kind, scale, x, labels, w, v, grad, work, rwork, places, filters, shared,
                       room):
    """The Gauss-Newton matrix times v: the gradient's own way back, from the tangent of the outputs' adjoint."""
    for t in range(lo, hi):
        own, own_places, theta, direction = work[t], places[t], w[t % len(w)], v[t % len(v)]
        r_outputs(table, rtable, reals, lists, N, kind, scale, x[t], labels[t % len(labels)], theta, direction, own, rwork, own_places,
                  filters, shared, room)
        backward(table, rtable, reals, lists, N, x[t], theta, grad[t], own, rwork, own_places, filters, shared)


def order_filters(table, lists, w, filters):
    """Every product's filters in both orders, for tasks that share them."""
    order_all(table, lists, w, filters)


TABLE, LIST, ROW, ROWS, STACK = "int64[:,::1]", "int64[::1]", "F[::1]", "F[:,::1]", "F[:,:,::1]"
PLACES, LABELS = "int16[:,::1]", "int64[:,::1]"
PRODUCT = ("int64", "int64", TABLE, TABLE, ROWS, LIST, "int64", "int64", "F", ROWS, LABELS, ROWS, ROWS, ROWS, ROWS, ROW, PLACES, ROW,
           "boolean", ROW)
SIGNATURES = {
    primal_tasks: ("int64", "int64", TABLE, ROWS, LIST, "int64", "int64", "F", ROWS, LABELS, STACK, ROWS, STACK, ROW, "boolean[::1]", ROWS,
                   ROWS, PLACES, ROW, "boolean"),
    hessian_tasks: PRODUCT, gauss_newton_tasks: PRODUCT,
    order_filters: (TABLE, LIST, ROW, ROW)}
