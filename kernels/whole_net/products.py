"""The products of a chain, convolutions and matrix products alike, for one task. Parameters are in the order of filter_order.py."""

from refmaml.kernels.bias import cpu as bias
from refmaml.kernels.conv2d import cpu as conv2d
from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD
from refmaml.kernels.linear import cpu as linear
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.whole_net import program as at


@inlined()
def block_of(row, lists, what):
    """The lists of a product, or (what = 0) of windows."""
    start = row[at.LISTS + what]
    return lists[start + 1 : start + 1 + lists[start]]


@inlined()
def own(row, w):
    """A product's own part of a vector of parameters."""
    return w[row[at.WEIGHT] : row[at.WEIGHT] + row[at.O] * row[at.C] * row[at.KH] * row[at.KW]]


@inner()
def forward(row, lists, N, y, x, x2, w, w2):
    """y = x * w + bias, plus x2 * w2 where there is an x2; the bias is that of w2 then."""
    block, f, f2 = block_of(row, lists, FORWARD), own(row, w), own(row, w2)
    if row[at.KIND] == at.MATRIX:
        linear.task_forward(y, x, x2, f, f2, block)
    else:
        conv2d.product(y, x, x2, y, y, f, f2, block, N)
    if row[at.BIAS] >= 0 and row[at.SILENT] == 0:  # else a batch-norm takes the bias away again
        O = row[at.O]
        bias.task_forward(y.reshape((len(y) // O, O)), w2[row[at.BIAS] : row[at.BIAS] + O])


@inner()
def backward_x(row, lists, N, dx, dy, dy2, turned, turned2):
    """dx = product_dx(dy, w), plus product_dx(dy2, w2) where there is a dy2; with w and w2 turned."""
    block, f, f2 = block_of(row, lists, BACKWARD_X), own(row, turned), own(row, turned2)
    if row[at.KIND] == at.MATRIX:
        linear.task_backward_x(dx, dy, dy2, f, f2, block)
    else:
        conv2d.product(dx, dx, dx, dy, dy2, f, f2, block, N)


@inner()
def backward_w(row, lists, N, grad, x, x2, dy, dy2):
    """dw = product_dw(x, dy), plus product_dw(x2, dy2) where there is an x2; and db, which belongs to dy2."""
    block, dw = block_of(row, lists, BACKWARD_W), own(row, grad)
    if row[at.KIND] == at.MATRIX:
        linear.task_backward_w(dw, dy, dy2[:0] if len(x2) == 0 else dy2, x, x2, block)
    else:
        conv2d.product(dw, x, x2, dy, dy2, dw, dw, block, N)
    bias_gradient(row, grad, dy2)


@inlined()
def bias_gradient(row, grad, dy):
    """db = sum dy; exactly 0 where a batch-norm takes the bias away."""
    if row[at.BIAS] >= 0:
        O = row[at.O]
        db = grad[row[at.BIAS] : row[at.BIAS] + O]
        if row[at.SILENT] == 0:
            bias.task_backward(db, dy.reshape((len(dy) // O, O)))
        else:
            db[:] = 0
