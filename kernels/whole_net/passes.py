"""The four passes through a net for one task: forward, backward, r_forward, r_backward.

They are those of Sequential in network.py, over a table of operations (program.py).
What an operation computes is in the operation's own folder. Where the input of an
operation is constant, nothing has a tangent before the operation's own parameters.

    x             the input of the net
    w, v, grad    parameters, a direction, a gradient; flat, in product order
    wt, vt        w and v with transposed filters (filter_order.py)
    work, rwork   values and adjoints of the net, and their tangents
    winners       winners of max-pooling

Each pass is compiled on its own (external_functions.py), with flat arrays as arguments.
A pass makes no array: what an operation needs besides, its own functions make.
"""

from refmaml.kernels.activation import cpu as activation
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.unowned_views import part
from refmaml.kernels.whole_net import batch_norm, group_norm, products, residual
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net.images import (
    input_of,
    map_images,
    map_images_transposed,
    max_pool,
    output_of,
    winners_of,
)

# The types of the arguments; F is the precision.
TABLE = "int64[:,::1]"
PROGRAM = f"{TABLE}, F[:,::1], int64[::1], int64"  # table, reals, lists, N
WORK = "F[::1], int16[::1]"  # the last work array, winners


def vectors(count):
    return ", ".join(["F[::1]"] * count)


# fmt: off
@external(f"{PROGRAM}, {vectors(2)}, {WORK}", allocates=False)
def forward(table, reals, lists, N, x, w, work, winners):
    """Fills the values in `work`, and the winners."""
    for i in range(len(table)):
        row, kind = table[i], table[i, at.KIND]
        a, y = input_of(row, row[at.X], x, work, N), output_of(row, row[at.Y], work, N)
        won = winners_of(row, winners, N)
        if kind <= at.MATRIX:
            products.forward(row, lists, N, y, a, part(a, 0, 0), w, w)
        elif kind == at.NORM_ACT_POOL:
            batch_norm.forward(row, lists, N, y, won, a, work, w, reals[i, 0], reals[i, 1])
        elif kind == at.ACTIVATE:
            activation.forward_block(y, a, row[at.FUNCTION], reals[i, 1])
        elif kind == at.MAX_POOL:
            max_pool(row, y, a, won, N)
        elif kind == at.GROUP_NORM:
            group_norm.forward(row, lists, N, y, a, work, w, reals[i, 0], reals[i, 1])
        elif kind >= at.SUM:
            residual.forward(row, y, a, x, work, N)
        else:
            map_images(row, y, a, won, N)


@external(f"{TABLE}, {PROGRAM}, {vectors(5)}, {WORK}", allocates=False)
def backward(table, dtable, reals, lists, N, x, w, wt, grad, work, dwork, winners):
    """Fills the gradient from the adjoint of the last value.

    dwork, dtable: where the adjoints are; `work` and `table` if they have memory there.
    """
    for i in range(len(table) - 1, -1, -1):
        row, drow, kind = table[i], dtable[i], table[i, at.KIND]
        a, y = input_of(row, row[at.X], x, work, N), output_of(row, row[at.Y], work, N)
        dx, dy = input_of(row, drow[at.DX], x, dwork, N), output_of(row, drow[at.DY], dwork, N)
        won = winners_of(row, winners, N)
        if kind <= at.MATRIX:
            products.backward_w(row, lists, N, grad, a, part(a, 0, 0), dy, dy)
            if row[at.CONSTANT] == 0:
                products.backward_x(row, lists, N, dx, dy, part(dy, 0, 0), wt, wt)
        elif kind == at.NORM_ACT_POOL:
            batch_norm.backward(row, lists, N, dx, dy, y, won, a, work, w, grad, reals[i, 1])
        elif kind == at.ACTIVATE:
            activation.derivative_block(dx, dy, a, row[at.FUNCTION], reals[i, 1])
        elif kind == at.GROUP_NORM:
            group_norm.backward(row, lists, N, dx, dy, y, a, work, w, grad, reals[i, 1])
        elif kind >= at.SUM:
            residual.backward(drow, dx, dy, x, dwork, N)
        elif row[at.CONSTANT] == 0:
            map_images_transposed(row, dx, dy, won, N)


@external(f"{TABLE}, {PROGRAM}, {vectors(4)}, {WORK}", allocates=False)
def r_forward(table, rtable, reals, lists, N, x, w, v, work, rwork, winners):
    """Fills the tangents of the values along v, and what r_backward needs of them."""
    for i in range(len(table)):
        row, rrow, kind = table[i], rtable[i], table[i, at.KIND]
        a, y = input_of(row, row[at.X], x, work, N), output_of(row, row[at.Y], work, N)
        ra, ry = input_of(row, rrow[at.X], x, rwork, N), output_of(row, rrow[at.Y], rwork, N)
        won = winners_of(row, winners, N)
        if kind <= at.MATRIX:
            if row[at.CONSTANT] == 1:
                products.forward(row, lists, N, ry, a, part(a, 0, 0), v, v)
            else:
                products.forward(row, lists, N, ry, ra, a, w, v)
        elif kind == at.NORM_ACT_POOL:
            batch_norm.r_forward(row, rrow, lists, N, ry, ra, y, won, a, work, rwork, w, v,
                                 reals[i, 1])
        elif kind == at.ACTIVATE:
            activation.derivative_block(ry, ra, a, row[at.FUNCTION], reals[i, 1])
        elif kind == at.GROUP_NORM:
            group_norm.r_forward(row, rrow, lists, N, ry, ra, y, a, work, rwork, w, v,
                                 reals[i, 1])
        elif kind >= at.SUM:
            residual.r_forward(row, rrow, ry, ra, x, rwork, N)
        elif row[at.CONSTANT] == 0:
            map_images(row, ry, ra, won, N)


@external(f"{TABLE}, {PROGRAM}, {vectors(7)}, {WORK}", allocates=False)
def r_backward(table, rtable, reals, lists, N, x, w, v, wt, vt, grad, work, rwork, winners):
    """Fills the tangent of the gradient from the tangent of the last adjoint."""
    for i in range(len(table) - 1, -1, -1):
        row, rrow, kind = table[i], rtable[i], table[i, at.KIND]
        a, y = input_of(row, row[at.X], x, work, N), output_of(row, row[at.Y], work, N)
        ra, dy = input_of(row, rrow[at.X], x, rwork, N), output_of(row, row[at.DY], work, N)
        rdx, rdy = input_of(row, rrow[at.DX], x, rwork, N), output_of(row, rrow[at.DY], rwork, N)
        won = winners_of(row, winners, N)
        if kind <= at.MATRIX:
            if row[at.CONSTANT] == 1:
                products.backward_w(row, lists, N, grad, a, part(a, 0, 0), rdy, rdy)
            else:
                products.backward_w(row, lists, N, grad, ra, a, dy, rdy)
                products.backward_x(row, lists, N, rdx, rdy, dy, wt, vt)
        elif kind == at.NORM_ACT_POOL:
            batch_norm.r_backward(row, rrow, lists, N, ra, dy, rdy, y, won, a, work, rwork, w, v,
                                  grad, reals[i, 1])
        elif kind == at.ACTIVATE:
            activation.r_derivative_block(rdx, dy, rdy, a, ra, row[at.FUNCTION], reals[i, 1])
        elif kind == at.GROUP_NORM:
            group_norm.r_backward(row, rrow, lists, N, ra, dy, rdy, y, a, work, rwork, w, v, grad,
                                  reals[i, 1])
        elif kind >= at.SUM:
            residual.backward(rrow, rdx, rdy, x, rwork, N)
        elif row[at.CONSTANT] == 0:
            map_images_transposed(row, rdx, rdy, won, N)
# fmt: on
