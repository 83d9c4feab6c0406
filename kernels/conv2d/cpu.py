"""2-D convolution on a CPU: the formulas are in reference.py.

Arrays are channels last: x (T, N, H, W, C), y (T, N, Ho, Wo, O). One loop computes all
three products, `accumulate`: rows of c += (numbers of a) times (rows of b), with lists
of offsets (gather_indices.py). Let w be the filters of one tap (p, q) of the kernel,
and x[pixel], y[position] rows of channels. Over the positions that see a pixel through
the tap,

    forward      y[position] += sum_c x[pixel, c] w[c]
    backward_x   dx[pixel]   += sum_o dy[position, o] w'[o]
    backward_w   dw[c]       += sum_position x[pixel, c] dy[position]

Only pixels inside the image are listed, so nothing is multiplied by the zeros of the
padding. The R-passes are sums of two products, one after the other. Dilation is a
matter of the lists; groups are tasks of the same loop (groups.py).

Versions, and microseconds per task of forward / backward_x / backward_w, for 5 images,
64 -> 64 channels, 14x14 -> 7x7, float32, one thread. (At the speed of a 1024^3 sgemm in
the same run each product would take 160.)

  v1  reference.py: patches of all tasks at once, NumPy's matmul         550 / 610 / 530
  v2  patches of one task at a time, which stay in the second-level
      cache; channels last, so that copying a patch moves long runs;
      one BLAS product on them from inside Numba                         300 / 580 / 620
  v3  no patches, no BLAS, no products with the padding: the present
      loop, with filters reordered by loops                              225 / 230 / 265
  v4  filters reordered in registers, 16 x 16 at a time: 20
      microseconds per task instead of 60                                200 / 205 / 205
  v5  taps that are the first to write to an element overwrite it, so
      that nothing is set to 0 before; sums in parts of equal length;
      filters read row by row from memory, without a copy (sgemm would
      take 147)                                                          155 / 150 / 165
  v6  3 x 3 filters with stride 1, where algorithms.py says so: fewer
      products (winograd.py has the times)                               not at stride 2

Rejected: filters of backward_x made from those of forward, tap by tap (40 microseconds
per task instead of 20); in backward_w rows of o and columns of c (255 instead of 205);
32 to 128 steps at a time (within 10 % of each other).
"""

import numpy as np
from numba import prange

from refmaml.kernels.conv2d import winograd
from refmaml.kernels.conv2d.algorithms import by_winograd, product_block
from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD, N_IMAGES
from refmaml.kernels.conv2d.groups import filters_by_group, groups, images_by_group
from refmaml.kernels.conv2d.task_product import product
from refmaml.kernels.conv2d.winograd_block import I, J
from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.transpose import transpose, transpose_uncached

__all__ = [
    "conv2d_forward",
    "conv2d_backward_x",
    "conv2d_backward_w",
    "conv2d_r_forward",
    "conv2d_r_backward_x",
    "conv2d_r_backward_w",
]


# ---- filters: (O, C, taps) in w; rows in the products --------------------------------


@inner()
def row_offsets(O, C, taps):
    """Where the rows (tap, c) of O numbers begin, listed in the order (c, tap)."""
    rows = np.empty(C * taps, np.int64)
    for c in range(C):
        for p in range(taps):
            rows[c * taps + p] = (p * C + c) * O
    return rows


@inner()
def order_forward(rows, w, O, C):
    """One task's filters w as rows (tap, c) of O numbers."""
    taps = len(w) // (O * C)
    transpose_uncached((rows, row_offsets(O, C, taps), w, np.arange(O) * (C * taps)))


@inner()
def order_backward(rows, w, O, C):
    """One task's filters w as rows (tap, o) of C numbers."""
    taps = len(w) // (O * C)
    if taps == 1:  # they are rows already
        for e in range(len(w)):
            rows[e] = w[e]
    else:
        of_taps, of_channels = np.arange(taps) * (O * C), np.arange(C) * taps
        for o in range(O):
            transpose((rows[o * C :], of_taps, w[o * C * taps :], of_channels))


@inner()
def restore_filters(dw, rows, O, C):
    """dw (O, C, taps) from rows (tap, c) of O numbers."""
    taps = len(dw) // (O * C)
    transpose((dw, np.arange(O) * (C * taps), rows, row_offsets(O, C, taps)))


@compiled("rows! rows integer integer integer", grain=4096)
def filter_rows(rows, w, what, O, C):
    """Every task's filters as rows."""
    for t in prange(len(w)):
        if what == FORWARD:
            order_forward(rows[t], w[t], O, C)
        else:
            order_backward(rows[t], w[t], O, C)


# ---- products of all tasks -----------------------------------------------------------


# fmt: off
@compiled("images! images images rows rows offsets", grain=512)
def products_with_filters(c, a, a2, f, f2, block):
    """y from x, or dx from dy, as `block` says; threads take groups of images."""
    (T, N), n = c.shape[:2], block[N_IMAGES]
    groups = (N + n - 1) // n
    for group in prange(T * groups):
        t, lo = group // groups, group % groups * n
        hi = min(lo + n, N)
        part, part2 = a[t, lo:hi].ravel(), a2[t, lo:hi].ravel()
        product(c[t, lo:hi].ravel(), part, part2, part, part2, f[t % len(f)], f2[t % len(f2)],
                block, hi - lo)


@compiled("rows! images images images images offsets", grain=512)
def products_for_filters(dw, x, x2, dy, dy2, block):
    """dw; threads take tasks."""
    for t in prange(len(x)):
        rows = np.empty(dw.shape[1], x.dtype)
        product(rows, x[t].ravel(), x2[t].ravel(), dy[t].ravel(), dy2[t].ravel(), rows, rows,
                block, x.shape[1])
        restore_filters(dw[t], rows, block[4], block[1])


@compiled("images! images images rows rows offsets", grain=512)
def winograd_with_filters(c, a, a2, f, f2, block):
    """`products_with_filters` by Winograd's filtering: a function of its own, so that
    a net without it compiles none of it.
    """
    (T, N), n = c.shape[:2], block[N_IMAGES]
    groups = (N + n - 1) // n
    for group in prange(T * groups):
        t, lo = group // groups, group % groups * n
        hi = min(lo + n, N)
        part, part2 = a[t, lo:hi].ravel(), a2[t, lo:hi].ravel()
        winograd.product(c[t, lo:hi].ravel(), part, part2, part, part2, f[t % len(f)],
                         f2[t % len(f2)], block, hi - lo)


@compiled("rows! images images images images offsets", grain=512)
def winograd_for_filters(dw, x, x2, dy, dy2, block):
    """`products_for_filters` by Winograd's filtering."""
    for t in prange(len(x)):
        rows = np.empty(dw.shape[1], x.dtype)
        winograd.product(rows, x[t].ravel(), x2[t].ravel(), dy[t].ravel(), dy2[t].ravel(), rows,
                         rows, block, x.shape[1])
        restore_filters(dw[t], rows, block[J], block[I])
# fmt: on


# ---- the kernels of a kernel set -----------------------------------------------------


def rows_from(w, what, dtype):
    """w (T, O, C, kH, kW) as rows for a product, (T, O C kH kW)."""
    T, O, C, kH, kW = w.shape
    rows = np.empty((T, O * C * kH * kW), dtype)
    filter_rows(rows, w, what, O, C)
    return rows


def block_for(what, x, y, w, stride, padding, dilation):
    """The block of a product. (Padding at the far ends follows from the extents.)"""
    kernel, start = tuple(w.shape[3:]), (padding[0][0], padding[1][0])
    geometry = kernel, tuple(stride), start, tuple(dilation)
    return product_block(what, *x.shape[1:], *y.shape[2:], *geometry)


def channels_last(shape, dtype):
    """An array of images (T, N, C, ...), channels last in memory."""
    T, N, C, *extents = shape
    return np.moveaxis(np.empty((T, N, *extents, C), dtype), -1, 2)


def pair(arrays):
    """One or two arrays as two; the second is empty for each task if
    there is only one.
    """
    return [arrays[0], arrays[1] if len(arrays) > 1 else arrays[0][:, :0]]


def sum_forward(y, xs, ws, stride, padding, dilation):
    """y = the sum of conv(x, w) over one or two pairs."""

    def product(y, xs, ws):
        rows = [rows_from(w, FORWARD, y.dtype) for w in ws]
        block = block_for(FORWARD, xs[0], y, ws[0], stride, padding, dilation)
        run = winograd_with_filters if by_winograd(block) else products_with_filters
        run(y, *pair(xs), *pair(rows), block)

    images_by_group(product, y, xs, ws, groups(xs[0], ws[0]), channels_last)


def sum_backward_x(dx, dys, ws, stride, padding, dilation):
    """dx = the sum of conv_dx(dy, w) over one or two pairs."""

    def product(dx, dys, ws):
        rows = [rows_from(w, BACKWARD_X, dx.dtype) for w in ws]
        block = block_for(BACKWARD_X, dx, dys[0], ws[0], stride, padding, dilation)
        run = winograd_with_filters if by_winograd(block) else products_with_filters
        run(dx, *pair(dys), *pair(rows), block)

    images_by_group(product, dx, dys, ws, groups(dx, ws[0]), channels_last)


def sum_backward_w(dw, xs, dys, stride, padding, dilation):
    """dw = the sum of conv_dw(x, dy) over one or two pairs."""

    def product(dw, xs, dys):
        block = block_for(BACKWARD_W, xs[0], dys[0], dw, stride, padding, dilation)
        run = winograd_for_filters if by_winograd(block) else products_for_filters
        run(dw, *pair(xs), *pair(dys), block)

    filters_by_group(product, dw, xs, dys, groups(xs[0], dw), channels_last)


def conv2d_forward(y, x, w, stride, padding, dilation=(1, 1)):
    """y = conv(x, w)."""
    sum_forward(y, (x,), (w,), stride, padding, dilation)


def conv2d_backward_x(dx, dy, w, stride, padding, dilation=(1, 1)):
    """dx = conv_dx(dy, w)."""
    sum_backward_x(dx, (dy,), (w,), stride, padding, dilation)


def conv2d_backward_w(dw, x, dy, stride, padding, dilation=(1, 1)):
    """dw = conv_dw(x, dy), one per task."""
    sum_backward_w(dw, (x,), (dy,), stride, padding, dilation)


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding, dilation=(1, 1)):
    """ry = conv(rx, w) + conv(x, rw)."""
    sum_forward(ry, (rx, x), (w, rw), stride, padding, dilation)


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding, dilation=(1, 1)):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    sum_backward_x(rdx, (rdy, dy), (w, rw), stride, padding, dilation)


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding, dilation=(1, 1)):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    sum_backward_w(rdw, (rx, x), (dy, rdy), stride, padding, dilation)
