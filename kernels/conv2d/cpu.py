"""2-D convolution on a CPU: see reference.py for what is computed. Arrays come channels last: x (T, N, H, W, C), y (T, N, Ho, Wo, O).

One loop does it all, `accumulate`: rows of c += (numbers of a) times (rows of b), with lists of offsets to say which. With w the filters of
one tap (p, q) of the kernel, x[pixel] and y[position] rows of channels, and the sum over the positions that see a pixel through the tap,

    forward      y[position] += sum_c x[pixel, c] w[c]
    backward_x   dx[pixel]   += sum_o dy[position, o] w'[o]
    backward_w   dw[c]       += sum_position x[pixel, c] dy[position]

Only pixels inside the image are listed, so no zero is ever multiplied. The R-passes are sums of two products: twice the same, in turn.

Versions, and microseconds a task for forward / backward_x / backward_w, 5 images, 64 -> 64 channels, 14x14 -> 7x7, float32, one thread
(at the rate of a 1024^3 sgemm in the same run each would take 160):

  v1  reference.py: patches of all tasks at once, NumPy's matmul                                                  550 / 610 / 530
  v2  patches of one task at a time, which stay in the second-level cache; channels last, so that a copy of
      a patch moves long runs; one BLAS product from inside Numba on them                                         300 / 580 / 620
  v3  no patches, no BLAS, no products with the zeros of the border: this, with filters put in order by loops      225 / 230 / 265
  v4  the filters put in order in registers, 16 x 16 at a time: 20 microseconds a task instead of 60              200 / 205 / 205
  v5  taps that are the first to write somewhere do so in place of what was there, so that nothing is set to 0 before;
      sums in parts of equal length; filters read row by row from memory, without a copy (sgemm would take 147)   155 / 150 / 165

Tried and left: filters of the second kind made from the first, tap by tap (40 microseconds a task, not 20); in backward_w rows of o
and columns of c (255, not 205); 32 to 128 steps at a time (within 10 % of each other).
"""

import numpy as np
from numba import prange

from refmaml.kernels.conv2d.gather_indices import (
    BACKWARD_W,
    BACKWARD_X,
    COVERED,
    FORWARD,
    N_IMAGES,
    N_TAPS,
    SUMMED,
    WHAT,
    lists,
    sights,
)
from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.gemm_microkernel import (
    accumulate,
    transpose,
    transpose_from_afar,
)
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = [
    "conv2d_forward",
    "conv2d_backward_x",
    "conv2d_backward_w",
    "conv2d_r_forward",
    "conv2d_r_backward_x",
    "conv2d_r_backward_w",
]


# ---- filters: (O, C, taps) in w; rows (tap, c) of O numbers, or (tap, o) of C numbers, in the products -------------------------


@inner()
def by_tap(O, C, taps):
    """Where the rows (tap, c) of O numbers begin, in the order (c, tap)."""
    rows = np.empty(C * taps, np.int64)
    for c in range(C):
        for p in range(taps):
            rows[c * taps + p] = (p * C + c) * O
    return rows


@inner()
def order_forward(rows, w, O, C):
    """One task's filters w as rows (tap, c) of O numbers."""
    taps = len(w) // (O * C)
    transpose_from_afar((rows, by_tap(O, C, taps), w, np.arange(O) * (C * taps)))


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
    transpose((dw, np.arange(O) * (C * taps), rows, by_tap(O, C, taps)))


# ---- the products, for one task: all arrays flat -------------------------------------------------------------------------


@inner()
def with_border(x, n, block):
    """n images (H, W, C) in a line, each with a border of zeros; the images themselves where there is to be none."""
    C, H, W, Hp, Wp, top, left = (
        block[1],
        block[2],
        block[3],
        block[8],
        block[9],
        block[10],
        block[11],
    )
    if Hp == 0:
        return x
    xs = np.zeros(n * Hp * Wp * C, x.dtype)
    for m in range(n):
        for h in range(min(H, Hp - top)):
            for e in range(min(W, Wp - left) * C):
                xs[((m * Hp + top + h) * Wp + left) * C + e] = x[(m * H + h) * W * C + e]
    return xs


@inner()
def product(c, x, x2, y, y2, f, f2, block, N):
    """c: y or dx of N images, or the rows of dw from them, as the product of the other two of x, y and f; f: filters in rows.

    Where there are x2, y2, f2, the product of those is added. `block` says which of the three it is.
    (What varies comes in arrays: for every constant argument Numba would compile the function anew.)
    """
    n, C, O, taps, what, K = (
        block[N_IMAGES],
        block[1],
        block[4],
        block[N_TAPS],
        block[WHAT],
        block[SUMMED],
    )
    size_x, size_y, covered = C * block[2] * block[3], O * block[5] * block[6], block[COVERED]
    first, fresh, place, pixels, positions, steps, rows = lists(block)
    if what != BACKWARD_W and covered == 0:
        c[:] = 0
    for image in range(0, N, n):
        m, from_x, from_y = min(n, N - image), image * size_x, image * size_y
        for part in range(1 if len(y2 if what == BACKWARD_X else x2) == 0 else 2):
            xs, ys, fs = x2 if part else x, y2 if part else y, f2 if part else f
            if what != BACKWARD_X:
                xs = with_border(xs[from_x : from_x + m * size_x], m, block)
            for tap in range(taps):
                begin, end = first[tap], first[tap] + (first[tap + 1] - first[tap]) // n * m
                new = part == 0 and covered * fresh[tap] == 1
                if what == FORWARD:
                    accumulate(
                        (
                            c[from_y:],
                            xs,
                            fs[place[tap] * K * O :],
                            positions,
                            pixels,
                            begin,
                            end,
                            steps,
                            rows,
                            first[0],
                            K,
                            O,
                            new,
                        )
                    )
                elif what == BACKWARD_X:
                    accumulate(
                        (
                            c[from_x:],
                            ys[from_y:],
                            fs[place[tap] * K * C :],
                            pixels,
                            positions,
                            begin,
                            end,
                            steps,
                            rows,
                            first[0],
                            K,
                            C,
                            new,
                        )
                    )
                else:
                    dw, new = c[place[tap] * K * O :], image == 0 and part == 0
                    if new and begin == end:  # a tap through which nothing is seen
                        dw[: K * O] = 0
                    accumulate(
                        (
                            dw,
                            xs,
                            ys[from_y:],
                            rows,
                            steps,
                            first[0],
                            K,
                            pixels,
                            positions,
                            begin,
                            end,
                            O,
                            new,
                        )
                    )


@compiled("rows! rows whole whole whole", grain=4096)
def filter_rows(rows, w, what, O, C):
    """Every task's filters as rows."""
    for t in prange(len(w)):
        if what == FORWARD:
            order_forward(rows[t], w[t], O, C)
        else:
            order_backward(rows[t], w[t], O, C)


@compiled("images! images images rows rows list", grain=512)
def images(c, a, a2, f, f2, block):
    """y from x, or dx from dy, as `block` says: their tiles of images the threads share."""
    (T, N), n = c.shape[:2], block[N_IMAGES]
    tiles = (N + n - 1) // n
    for tile in prange(T * tiles):
        t, lo = tile // tiles, tile % tiles * n
        hi = min(lo + n, N)
        part, part2 = a[t, lo:hi].ravel(), a2[t, lo:hi].ravel()
        product(
            c[t, lo:hi].ravel(),
            part,
            part2,
            part,
            part2,
            f[t % len(f)],
            f2[t % len(f2)],
            block,
            hi - lo,
        )


@compiled("rows! images images images images list", grain=512)
def backward_w(dw, x, x2, dy, dy2, block):
    """dw, a thread for each task."""
    for t in prange(len(x)):
        rows = np.empty(dw.shape[1], x.dtype)
        product(
            rows,
            x[t].ravel(),
            x2[t].ravel(),
            dy[t].ravel(),
            dy2[t].ravel(),
            rows,
            rows,
            block,
            x.shape[1],
        )
        restore_filters(dw[t], rows, block[4], block[1])


# ---- what a kernel set offers ------------------------------------------------------------------------------------------


def rows_from(w, what, dtype):
    """w (T, O, C, kH, kW) as rows to add up, (T, O C kH kW)."""
    T, O, C, kH, kW = w.shape
    rows = np.empty((T, O * C * kH * kW), dtype)
    filter_rows(rows, w, what, O, C)
    return rows


def block_for(what, x, y, w, stride, padding):
    """Which pixel each position sees. (What lies beyond the ends of the padding follows from the extents.)"""
    return sights(
        what,
        *x.shape[1:],
        *y.shape[2:],
        tuple(w.shape[3:]),
        tuple(stride),
        (padding[0][0], padding[1][0]),
    )


def with_second(arrays):
    """One or two arrays as two, the second with nothing of each task where there is only one."""
    return [arrays[0], arrays[1] if len(arrays) > 1 else arrays[0][:, :0]]


def sum_forward(y, xs, ws, stride, padding):
    """y = the sum of conv(x, w) over one or two pairs."""
    x, x2, f, f2 = with_second(xs) + with_second([rows_from(w, FORWARD, y.dtype) for w in ws])
    images(y, x, x2, f, f2, block_for(FORWARD, xs[0], y, ws[0], stride, padding))


def sum_backward_x(dx, dys, ws, stride, padding):
    """dx = the sum of conv_dx(dy, w) over one or two pairs."""
    dy, dy2, f, f2 = with_second(dys) + with_second(
        [rows_from(w, BACKWARD_X, dx.dtype) for w in ws]
    )
    images(dx, dy, dy2, f, f2, block_for(BACKWARD_X, dx, dys[0], ws[0], stride, padding))


def sum_backward_w(dw, xs, dys, stride, padding):
    """dw = the sum of conv_dw(x, dy) over one or two pairs."""
    backward_w(
        dw,
        *with_second(xs),
        *with_second(dys),
        block_for(BACKWARD_W, xs[0], dys[0], dw, stride, padding),
    )


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    sum_forward(y, (x,), (w,), stride, padding)


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    sum_backward_x(dx, (dy,), (w,), stride, padding)


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    sum_backward_w(dw, (x,), (dy,), stride, padding)


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    sum_forward(ry, (rx, x), (w, rw), stride, padding)


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    sum_backward_x(rdx, (rdy, dy), (w, rw), stride, padding)


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    sum_backward_w(rdw, (rx, x), (dy, rdy), stride, padding)
