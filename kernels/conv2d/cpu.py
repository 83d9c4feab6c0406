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

Tried and left: filters of the second kind made from the first, tap by tap (40 microseconds a task, not 20); in backward_w rows of o
and columns of c (255, not 205); 32 to 128 steps at a time (within 10 % of each other).
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled
from refmaml.kernels.register_tiles import accumulate, transpose

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]

FORWARD, BACKWARD_X, BACKWARD_W = 0, 1, 2
FEW = 8                  # channels below which all taps are summed in one go, from a copy of x with its border of zeros
ROWS = 256               # positions that a thread takes at a time, give or take an image


# ---- which pixel each position sees through each tap -------------------------------------------------------------------

class Sights(NamedTuple):
    """For n images, tap after tap: where each pixel seen begins, and where the position that sees it; tap k's are first[k] .. first[k+1].

    steps     where the numbers that are summed up lie, from there on: the channels, or all of a patch where channels are few
    bordered  height and width of the copy of an image with its border that patches are then taken from; 0, 0 where there is none
    """
    n: int
    first: np.ndarray
    pixels: np.ndarray
    positions: np.ndarray
    steps: np.ndarray
    bordered: tuple


@lru_cache(maxsize=256)
def sights(what, N, C, H, W, O, Ho, Wo, kernel, stride, start):
    """The lists for one of the three products: integers that follow from the shapes, made once for each."""
    (kH, kW), (sH, sW), (top, left) = kernel, stride, start
    n = min(N, max(1, round(ROWS / (Ho * Wo))))
    bordered, steps, taps = (0, 0), np.arange(O if what == BACKWARD_X else C), [(p, q) for p in range(kH) for q in range(kW)]
    if C < FEW and what != BACKWARD_X:                               # the patch of a position begins at its first tap
        H, W = bordered = sH * (Ho - 1) + kH, sW * (Wo - 1) + kW
        steps = np.concatenate([(p * W + q) * C + steps for p, q in taps])
        taps, top, left = [(0, 0)], 0, 0
    m, i, j = np.indices((n, Ho, Wo)).reshape(3, -1)
    first, pixels, positions = [0], [], []
    for p, q in taps:
        h, w = sH * i + p - top, sW * j + q - left
        seen = (h >= 0) & (h < H) & (w >= 0) & (w < W)
        pixels.append((((m * H + h) * W + w) * C)[seen])
        positions.append((((m * Ho + i) * Wo + j) * O)[seen])
        first.append(first[-1] + len(pixels[-1]))
    return Sights(n, np.array(first), np.concatenate(pixels), np.concatenate(positions), steps, bordered)


# ---- filters: (O, C, taps) in w; rows (tap, c) of O numbers, or (tap, o) of C numbers, in the products -------------------------

@njit
def by_tap(O, C, taps):
    """Where the rows (tap, c) of O numbers begin, in the order (c, tap)."""
    rows = np.empty(C * taps, np.int64)
    for c in range(C):
        for p in range(taps):
            rows[c * taps + p] = (p * C + c) * O
    return rows


@compiled("lines! rows whole whole whole", grain=4096)
def filter_rows(rows, w, what, O, C):
    """Fills rows from w, task by task."""
    taps = w.shape[1] // (O * C)
    of_w, of_taps, of_channels, of_rows = np.arange(O) * (C * taps), np.arange(taps) * (O * C), np.arange(C) * taps, by_tap(O, C, taps)
    for t in prange(len(w)):
        if what == FORWARD:
            copy = np.empty(w.shape[1], rows.dtype)
            for e in range(len(copy)):                               # read in order they come quickly, and are then near
                copy[e] = w[t, e]
            transpose(rows[t], of_rows, copy, of_w)
        else:
            for o in range(O):
                transpose(rows[t, o * C:], of_taps, w[t, o * C * taps:], of_channels)


def rows_from(w, what, dtype):
    """w (T, O, C, kH, kW) as rows to add up."""
    T, O, C, kH, kW = w.shape
    if what == BACKWARD_X and kH * kW == 1:                          # they are rows already
        return w
    rows = np.empty((T, O * C * kH * kW), dtype)
    filter_rows(rows, w, what, O, C)
    return rows


# ---- the products ----------------------------------------------------------------------------------------------------

@njit
def with_border(x, n, image, bordered, start, C):
    """n images (H, W, C) in a line, each with a border of zeros; the images themselves where bordered is 0, 0."""
    (H, W), (Hp, Wp), (top, left) = image, bordered, start
    if Hp == 0:
        return x
    xs = np.zeros(n * Hp * Wp * C, x.dtype)
    for m in range(n):
        for h in range(min(H, Hp - top)):
            for e in range(min(W, Wp - left) * C):
                xs[((m * Hp + top + h) * Wp + left) * C + e] = x[(m * H + h) * W * C + e]
    return xs


@njit
def some_images(what, t, lo, hi, parts, x, x2, y, y2, f, f2, dw, extents, n, first, pixels, positions, steps, rows, bordered, start):
    """y or dx of images lo .. hi <= lo + n of a task, or dw from all its images, n at a time. The arrays are flat, but f and dw."""
    N, H, W, C, Ho, Wo, O = extents
    size_x, size_y, K = H * W * C, Ho * Wo * O, len(steps)
    if what == FORWARD:
        c = y[(t * N + lo) * size_y:(t * N + hi) * size_y]
    elif what == BACKWARD_X:
        c = x[(t * N + lo) * size_x:(t * N + hi) * size_x]
    else:
        c = np.empty(len(dw), x.dtype)
    c[:] = 0
    for image in range(lo, hi, n):
        m, from_x, from_y = min(n, hi - image), (t * N + image) * size_x, (t * N + image) * size_y
        for part in range(parts):
            a, b, fs = x2 if part else x, y2 if part else y, f2 if part else f
            a, b = with_border(a[from_x:from_x + m * size_x], m, (H, W), bordered, start, C), b[from_y:from_y + m * size_y]
            for tap in range(len(first) - 1):
                begin, end = first[tap], first[tap] + (first[tap + 1] - first[tap]) // n * m
                if what == FORWARD:
                    accumulate(c, a, fs[tap * K * O:], positions, pixels, begin, end, steps, rows, 0, K, O)
                elif what == BACKWARD_X:
                    accumulate(c, b, fs[tap * K * C:], pixels, positions, begin, end, steps, rows, 0, K, C)
                else:
                    accumulate(c[tap * K * O:], a, b, rows, steps, 0, K, pixels, positions, begin, end, O)
    if what == BACKWARD_W:
        taps = len(dw) // (O * C)
        transpose(dw, np.arange(O) * (C * taps), c, by_tap(O, C, taps))


@compiled("whole whole images images images! images rows rows rows whole list list list list pair pair")
def product(what, parts, x, x2, y, y2, f, f2, dw, n, first, pixels, positions, steps, bordered, start):
    """Whichever of y, x and dw `what` says, from the other two; f is w in rows."""
    (T, N, H, W, C), (Ho, Wo, O) = x.shape, y.shape[2:]
    tiles = 1 if what == BACKWARD_W else (N + n - 1) // n
    rows = np.arange(len(steps)) * (C if what == BACKWARD_X else O)
    xs, x2s, ys, y2s = x.reshape(x.size), x2.reshape(x.size), y.reshape(y.size), y2.reshape(y.size)
    for tile in prange(T * tiles):
        t, lo = tile // tiles, tile % tiles * n
        hi = N if what == BACKWARD_W else min(lo + n, N)
        some_images(what, t, lo, hi, parts, xs, x2s, ys, y2s, f[t % len(f)], f2[t % len(f2)], dw[t % len(dw)],
                    (N, H, W, C, Ho, Wo, O), n, first, pixels, positions, steps, rows, bordered, start)


REST = "whole list list list list pair pair"
forward = product.filling(f"whole whole images images images! images rows rows rows {REST}", grain=512)
backward_x = product.filling(f"whole whole images! images images images rows rows rows {REST}", grain=512)
backward_w = product.filling(f"whole whole images images images images rows rows rows! {REST}", grain=512)


# ---- what a kernel set offers ------------------------------------------------------------------------------------------

def lists(what, x, y, w, stride, padding):
    """The sights, and (top, left) of the padding: what lies beyond the other ends follows from the extents."""
    start = padding[0][0], padding[1][0]
    return *sights(what, *x.shape[1:], *y.shape[2:], tuple(w.shape[3:]), tuple(stride), start), start


def sum_forward(y, xs, ws, stride, padding):
    """y = the sum of conv(x, w) over one or two pairs."""
    f = [rows_from(w, FORWARD, y.dtype) for w in ws]
    forward(FORWARD, len(xs), xs[0], xs[-1], y, y, f[0], f[-1], f[0], *lists(FORWARD, xs[0], y, ws[0], stride, padding))


def sum_backward_x(dx, dys, ws, stride, padding):
    """dx = the sum of conv_dx(dy, w) over one or two pairs."""
    f = [rows_from(w, BACKWARD_X, dx.dtype) for w in ws]
    backward_x(BACKWARD_X, len(dys), dx, dx, dys[0], dys[-1], f[0], f[-1], f[0], *lists(BACKWARD_X, dx, dys[0], ws[0], stride, padding))


def sum_backward_w(dw, xs, dys, stride, padding):
    """dw = the sum of conv_dw(x, dy) over one or two pairs."""
    f = np.empty((1, 1), dw.dtype)
    backward_w(BACKWARD_W, len(xs), xs[0], xs[-1], dys[0], dys[-1], f, f, dw, *lists(BACKWARD_W, xs[0], dys[0], dw, stride, padding))


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
