"""The products of a chain, convolutions and matrix products alike, for one task: which kernel, and with which filters in which order.

`filters` holds those of every product in both orders where `shared`, as `order_all` left them; else it is room for one.
"""
import numpy as np

from refmaml.kernels.bias import cpu as bias
from refmaml.kernels.chain import program as at
from refmaml.kernels.conv2d import cpu as conv2d
from refmaml.kernels.conv2d.sights import BACKWARD_W, BACKWARD_X, FORWARD
from refmaml.kernels.inner import inlined, inner
from refmaml.kernels.linear import cpu as linear


@inlined()
def block_of(row, lists, what):
    """The lists of a product, or (what = 0) of windows."""
    start = row[at.LISTS + what]
    return lists[start + 1:start + 1 + lists[start]]


@inlined()
def is_product(row):
    return row[at.KIND] <= at.MATRIX


@inlined()
def own(row, w):
    """A product's own part of a vector of parameters."""
    return w[row[at.WEIGHT]:row[at.WEIGHT] + row[at.O] * row[at.C] * row[at.KH] * row[at.KW]]


@inner()
def forward_filters(row, block, w, filters, shared):
    """Ready, or put in order now."""
    weight = own(row, w)
    start = row[at.FILTERS] if shared else 0
    rows = filters[start:start + len(weight)]
    if not shared:
        order_forward(row, block, rows, weight)
    return rows


@inner()
def backward_filters(row, w, filters, shared):
    """Ready, or put in order now; those of a matrix product are as they are."""
    weight = own(row, w)
    start = row[at.FILTERS] + len(weight) if shared else 0
    rows = filters[start:start + len(weight)]
    if row[at.KIND] == at.MATRIX:
        return weight
    if not shared:
        conv2d.order_backward(rows, weight, row[at.O], row[at.C])
    return rows


@inner()
def order_forward(row, block, rows, weight):
    if row[at.KIND] == at.MATRIX:
        linear.transposed(rows, weight, block)
    else:
        conv2d.order_forward(rows, weight, row[at.O], row[at.C])


@inner()
def order_all(table, lists, w, filters):
    """Every product's filters in both orders."""
    for i in range(len(table)):
        row = table[i]
        if is_product(row):
            weight, start = own(row, w), row[at.FILTERS]
            order_forward(row, block_of(row, lists, FORWARD), filters[start:start + len(weight)], weight)
            if row[at.KIND] != at.MATRIX:
                conv2d.order_backward(filters[start + len(weight):start + 2 * len(weight)], weight, row[at.O], row[at.C])


@inner()
def forward(row, lists, N, y, x, x2, w, w2, filters, shared, room):
    """y = x * w + bias, plus x2 * w2 where there is an x2; the bias is that of w2 then. `room` is for the filters of w2."""
    block, never = block_of(row, lists, FORWARD), N < 0              # (not False: Numba would compile anew for a constant)
    f = forward_filters(row, block, w, filters, shared)
    f2 = forward_filters(row, block, w2, room, never) if len(x2) > 0 else f[:0]
    if row[at.KIND] == at.MATRIX:
        linear.task_forward(y, x, x2, f, f2, block)
    else:
        conv2d.product(y, x, x2, y, y, f, f2, block, N)
    add_bias(row, y, w2)


@inner()
def backward_x(row, lists, N, dx, dy, dy2, w, w2, filters, shared, room):
    """dx = product_dx(dy, w), plus product_dx(dy2, w2) where there is a dy2."""
    block, never = block_of(row, lists, BACKWARD_X), N < 0
    f = backward_filters(row, w, filters, shared)
    f2 = backward_filters(row, w2, room, never) if len(dy2) > 0 else f[:0]
    if row[at.KIND] == at.MATRIX:
        linear.task_backward_x(dx, dy, dy2, f, f2, block)
    else:
        conv2d.product(dx, dx, dx, dy, dy2, f, f2, block, N)


@inner()
def backward_w(row, lists, N, grad, x, x2, dy, dy2):
    """dw = product_dw(x, dy), plus product_dw(x2, dy2) where there is an x2; and db, which belongs to dy2."""
    block, dw = block_of(row, lists, BACKWARD_W), own(row, grad)
    if row[at.KIND] == at.MATRIX:
        linear.task_backward_w(dw, x, x2, dy, dy2, block)
    else:
        rows = np.empty(len(dw), grad.dtype)
        conv2d.product(rows, x, x2, dy, dy2, rows, rows, block, N)
        conv2d.restore_filters(dw, rows, row[at.O], row[at.C])
    bias_gradient(row, grad, dy2)


@inner()
def add_bias(row, y, w):
    """y += bias, unless a batch-norm takes it away again."""
    if row[at.BIAS] >= 0 and row[at.SILENT] == 0:
        O = row[at.O]
        bias.task_forward(y.reshape((len(y) // O, O)), w[row[at.BIAS]:row[at.BIAS] + O])


@inner()
def bias_gradient(row, grad, dy):
    """db = sum dy; exactly 0 where a batch-norm takes the bias away."""
    if row[at.BIAS] >= 0:
        O = row[at.O]
        db = grad[row[at.BIAS]:row[at.BIAS] + O]
        if row[at.SILENT] == 0:
            bias.task_backward(db, dy.reshape((len(dy) // O, O)))
        else:
            db[:] = 0
