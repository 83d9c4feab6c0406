"""The products of a net, convolutions and matrix products, for one task.

Parameters are in product order (filter_order.py).
"""

from refmaml.kernels.bias import cpu as bias
from refmaml.kernels.conv2d import task_product as conv2d
from refmaml.kernels.conv2d import winograd
from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD, WHAT
from refmaml.kernels.conv2d.winograd_block import WINOGRAD
from refmaml.kernels.linear import cpu as linear
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import matrix, part
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net import grouped

OFFSETS = "int64[::1], int64[::1], int64"  # row, lists, N


@inlined()
def list_of(row, lists, what):
    """An offset list of a product; of a NormActPool (what = 0), that of its windows."""
    start = row[at.LISTS + what]
    return part(lists, start + 1, start + 1 + lists[start])


@inlined()
def per_group(channels, row):
    """Channels of one group. A division would take as long as a small product."""
    return channels if row[at.GROUPS] == 1 else channels // row[at.GROUPS]


@inlined()
def filters_of(row, w):
    """The filters of a product in a parameter vector."""
    size = row[at.O] * per_group(row[at.C], row) * row[at.KH] * row[at.KW]
    return part(w, row[at.WEIGHT], row[at.WEIGHT] + size)


@inlined()
def convolution(row, c, x, x2, y, y2, f, f2, block, N):
    """A product of a convolution, by the algorithm that its block is for."""
    if row[at.GROUPS] > 1:
        grouped.product(c, x, x2, y, y2, f, f2, block, N)
    elif block[WHAT] >= WINOGRAD:
        winograd.product(c, x, x2, y, y2, f, f2, block, N)
    else:
        conv2d.product(c, x, x2, y, y2, f, f2, block, N)


@inlined()
def add_to_pixels(y, b):
    """y += b, broadcast over examples and positions."""
    for start in range(0, len(y), len(b)):
        pixel = part(y, start, start + len(b))
        for c in range(len(b)):
            pixel[c] += b[c]


@external(f"{OFFSETS}, F[::1], F[::1], F[::1], F[::1], F[::1]", allocates=False)
def forward(row, lists, N, y, x, x2, w, w2):
    """y = x * w + x2 * w2 + bias of w2. If x2 is empty, y = x * w + bias of w2."""
    block, f, f2 = list_of(row, lists, FORWARD), filters_of(row, w), filters_of(row, w2)
    if row[at.KIND] == at.MATRIX:
        linear.task_forward(y, x, x2, f, f2, block)
    else:
        convolution(row, y, x, x2, y, y, f, f2, block, N)
    if row[at.BIAS] >= 0 and row[at.BIAS_CANCELS] == 0:
        add_to_pixels(y, part(w2, row[at.BIAS], row[at.BIAS] + row[at.O]))


@external(f"{OFFSETS}, F[::1], F[::1], F[::1], F[::1], F[::1]", allocates=False)
def backward_x(row, lists, N, dx, dy, dy2, w, w2):
    """dx = product_dx(dy, w), plus product_dx(dy2, w2) unless dy2 is empty.

    w and w2 hold transposed filters.
    """
    block, f, f2 = list_of(row, lists, BACKWARD_X), filters_of(row, w), filters_of(row, w2)
    if row[at.KIND] == at.MATRIX:
        linear.task_backward_x(dx, dy, dy2, f, f2, block)
    else:
        convolution(row, dx, dx, dx, dy, dy2, f, f2, block, N)


@external(f"{OFFSETS}, F[::1], F[::1], F[::1], F[::1], F[::1]", allocates=False)
def backward_w(row, lists, N, grad, x, x2, dy, dy2):
    """dw = product_dw(x, dy), plus product_dw(x2, dy2) unless x2 is
    empty; db from dy2.
    """
    block, dw = list_of(row, lists, BACKWARD_W), filters_of(row, grad)
    if row[at.KIND] == at.MATRIX and row[at.O] == 1:  # dw is one row of C numbers, too
        linear.task_backward_w(dw, x, x2, dy, dy2, list_of(row, lists, FORWARD))
    elif row[at.KIND] == at.MATRIX:
        linear.task_backward_w(dw, dy, part(dy2, 0, 0) if len(x2) == 0 else dy2, x, x2, block)
    else:
        convolution(row, dw, x, x2, dy, dy2, dw, dw, block, N)
    bias_gradient(row, N, grad, dy2)


@inlined()
def bias_gradient(row, N, grad, dy):
    """db = sum dy; exactly 0 if a batch-norm follows, which subtracts
    the bias again.
    """
    if row[at.BIAS] >= 0:
        O = row[at.O]
        db = part(grad, row[at.BIAS], row[at.BIAS] + O)
        if row[at.BIAS_CANCELS] == 0:
            sum_pixels(db, dy, N * row[at.HO] * row[at.WO])
        else:
            db[:] = 0


@external("F[::1], F[::1], int64")
def sum_pixels(db, dy, pixels):
    """db = the sum of dy over all pixels of all examples."""
    bias.task_backward(db, matrix(dy, pixels, len(db)))
