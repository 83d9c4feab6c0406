"""2-D convolution on a CPU: see reference.py for what is computed. Arrays come channels last: x (T, N, H, W, C), y (T, N, Ho, Wo, O).

One loop does it all, `accumulate`: rows of c += (numbers of a) times (rows of b), with lists of offsets to say which. With w the filters of
one tap (p, q) of the kernel, x[pixel] and y[position] rows of channels, and the sum over the positions that see a pixel through the tap,

    forward      y[position] += sum_c x[pixel, c] w[c]
    backward_x   dx[pixel]   += sum_o dy[position, o] w'[o]
    backward_w   dw[c]       += sum_position x[pixel, c] dy[position]

Only pixels inside the image are listed, so no zero is ever multiplied. The R-passes are sums of two products: twice the same, in turn.

Versions, 64 -> 64 channels, 14x14 -> 7x7, 5 images a task, float32, one thread, forward / backward_x / backward_w:
  v1  reference.py: patches of all tasks, NumPy's matmul
  v2  patches of one task at a time, channels last so that a copy moves long runs; BLAS from inside Numba
  v3  this: no patches, no BLAS; filters are put in order in registers
"""
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled
from refmaml.kernels.register_tiles import VECTOR, accumulate, transpose

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]

FORWARD, BACKWARD_X, BACKWARD_W = 0, 1, 2
FEW = 8                  # channels below which all taps are summed in one go, from a copy of x with its border of zeros
ROWS = 256               # positions that a thread takes at a time, give or take an image


# ---- which pixel each position sees through each tap -------------------------------------------------------------------

class Sights(NamedTuple):
    """For n images, tap after tap: where each pixel seen begins, and where the position that sees it; tap k's are first[k] .. first[k+1].

    steps     where the channels of a pixel lie that are summed, from where it begins
    width     of a row of c and b: the channels, filled up to whole vectors
    bordered  height and width of the copy of an image with its border; 0, 0 where there is none
    """
    n: int
    first: np.ndarray
    pixels: np.ndarray
    positions: np.ndarray
    steps: np.ndarray
    width: int
    bordered: tuple


@lru_cache(maxsize=256)
def sights(what, N, C, H, W, O, Ho, Wo, kernel, stride, start, itemsize):
    """The lists for one of the three products: integers that follow from the shapes, made once for each."""
    (kH, kW), (sH, sW), (top, left) = kernel, stride, start
    n = min(N, max(1, round(ROWS / (Ho * Wo))))
    width = whole_vectors(C if what == BACKWARD_X else O, itemsize)
    x_width, y_width = (width, O) if what == BACKWARD_X else (C, width)
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
        pixels.append((((m * H + h) * W + w) * x_width)[seen])
        positions.append((((m * Ho + i) * Wo + j) * y_width)[seen])
        first.append(first[-1] + len(pixels[-1]))
    return Sights(n, np.array(first), np.concatenate(pixels), np.concatenate(positions), steps, width, bordered)


def whole_vectors(width, itemsize):
    """The least multiple of a vector that holds `width` numbers."""
    lanes = VECTOR // itemsize
    return -(-width // lanes) * lanes


# ---- filters: (O, C, taps) in w; rows (tap, c) of O numbers, or (tap, o) of C numbers, in the products -------------------------

@lru_cache(maxsize=256)
def filter_lists(O, C, taps, width):
    """Where the rows o of w begin; where the rows (tap, c) of `width` numbers begin, in the order (c, tap) of the columns of w."""
    return np.arange(O) * (C * taps), np.add.outer(np.arange(C), np.arange(taps) * C).ravel() * width


@compiled("lines! rows list list whole whole whole whole", grain=4096)
def filter_rows(rows, w, filters, by_tap, what, O, C, width):
    """Fills rows from w, task by task."""
    for t in prange(len(w)):
        copy, taps = np.empty(w.shape[1], rows.dtype), w.shape[1] // (O * C)
        for e in range(len(copy)):                                   # read in order they come quickly, and are then near
            copy[e] = w[t, e]
        if what == FORWARD:
            transpose(rows[t], by_tap, copy, filters)
        else:
            forward_rows, o_rows, c_rows = np.empty(len(copy), rows.dtype), np.arange(O) * width, np.arange(C) * O
            transpose(forward_rows, by_tap, copy, filters)
            for p in range(taps):
                transpose(rows[t, p * O * width:], o_rows, forward_rows[p * C * O:], c_rows)


def rows_from(w, what, width, dtype):
    """w (T, O, C, kH, kW) as rows to add up, filled up with zeros."""
    T, O, C, kH, kW = w.shape
    summed, channels = (C, O) if what == FORWARD else (O, C)
    rows = (np.empty if width == channels else np.zeros)((T, kH * kW * summed * width), dtype)
    filter_rows(rows, w, *filter_lists(O, C, kH * kW, width if what == FORWARD else O), what, O, C, width)
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
def resized(target, source, width, of_source):
    """Rows of `width` numbers from rows of `of_source`: cut off, or filled up with zeros."""
    for r in range(len(source) // of_source):
        for e in range(width):
            target[r * width + e] = source[r * of_source + e] if e < of_source else 0


@njit
def some_images(what, lo, hi, parts, x, x2, y, y2, f, f2, dw, n, first, pixels, positions, steps, width, bordered, start, filters, by_tap):
    """y or dx of images lo .. hi <= lo + n of a task, or dw from all its images, n at a time."""
    (H, W, C), (Ho, Wo, O) = x.shape[1:], y.shape[1:]
    size_x, size_y, K = H * W * C, Ho * Wo * O, len(steps)
    xs, x2s, ys, y2s, rows = x.reshape(x.size), x2.reshape(x.size), y.reshape(y.size), y2.reshape(y.size), np.arange(K) * width
    out, channels = (ys[lo * size_y:hi * size_y], O) if what == FORWARD else (xs[lo * size_x:hi * size_x], C)
    if what == BACKWARD_W:
        c = np.empty((len(first) - 1) * K * width, out.dtype)
    else:
        c = out if width == channels else np.empty(len(out) // channels * width, out.dtype)
    c[:] = 0
    for start_image in range(lo, hi, n):
        m = min(n, hi - start_image)
        for part in range(parts):
            a = with_border((x2s if part else xs)[start_image * size_x:(start_image + m) * size_x], m, (H, W), bordered, start, C)
            b = (y2s if part else ys)[start_image * size_y:(start_image + m) * size_y]
            if what == BACKWARD_W and width != O:
                b = np.empty(len(b) // O * width, b.dtype)
                resized(b, (y2s if part else ys)[start_image * size_y:(start_image + m) * size_y], width, O)
            fs = f2 if part else f
            for tap in range(len(first) - 1):
                begin, end, at = first[tap], first[tap] + (first[tap + 1] - first[tap]) // n * m, tap * K * width
                if what == FORWARD:
                    args = (c, a, fs[at:], positions, pixels, begin, end, steps, rows, 0, K)
                elif what == BACKWARD_X:
                    args = (c, b, fs[at:], pixels, positions, begin, end, steps, rows, 0, K)
                else:
                    args = (c[at:], a, b, rows, steps, 0, K, pixels, positions, begin, end)
                accumulate(*args, width)
    if what == BACKWARD_W:
        transpose(dw, filters, c, by_tap)
    elif width != channels:
        resized(out, c, channels, width)


@compiled("whole whole images images images! images lines lines rows whole list list list list whole pair pair list list")
def product(what, parts, x, x2, y, y2, f, f2, dw, n, first, pixels, positions, steps, width, bordered, start, filters, by_tap):
    """Whichever of y, x and dw `what` says, from the other two; f is w in rows."""
    T, N = x.shape[:2]
    tiles = 1 if what == BACKWARD_W else (N + n - 1) // n
    for tile in prange(T * tiles):
        t, lo = tile // tiles, tile % tiles * n
        hi = N if what == BACKWARD_W else min(lo + n, N)
        some_images(what, lo, hi, parts, x[t], x2[t], y[t], y2[t], f[t % len(f)], f2[t % len(f2)], dw[t % len(dw)], n,
                    first, pixels, positions, steps, width, bordered, start, filters, by_tap)


REST = "whole list list list list whole pair pair list list"
forward = product.filling(f"whole whole images images images! images lines lines rows {REST}", grain=512)
backward_x = product.filling(f"whole whole images! images images images lines lines rows {REST}", grain=512)
backward_w = product.filling(f"whole whole images images images images lines lines rows! {REST}", grain=512)


# ---- what a kernel set offers ------------------------------------------------------------------------------------------

def lists(what, x, y, w_shape, stride, padding, dtype):
    """(sights, start): start is (top, left) of the padding; what lies beyond the other ends follows from the extents."""
    start = padding[0][0], padding[1][0]
    return sights(what, *x.shape[1:], *y.shape[2:], tuple(w_shape[3:]), tuple(stride), start, dtype.itemsize), start


def sum_forward(y, xs, ws, stride, padding):
    """y = the sum of conv(x, w) over one or two pairs."""
    s, start = lists(FORWARD, xs[0], y, ws[0].shape, stride, padding, y.dtype)
    f = [rows_from(w, FORWARD, s.width, y.dtype) for w in ws]
    forward(FORWARD, len(xs), xs[0], xs[-1], y, y, f[0], f[-1], f[0], *s, start, s.first, s.first)


def sum_backward_x(dx, dys, ws, stride, padding):
    """dx = the sum of conv_dx(dy, w) over one or two pairs."""
    s, start = lists(BACKWARD_X, dx, dys[0], ws[0].shape, stride, padding, dx.dtype)
    f = [rows_from(w, BACKWARD_X, s.width, dx.dtype) for w in ws]
    backward_x(BACKWARD_X, len(dys), dx, dx, dys[0], dys[-1], f[0], f[-1], f[0], *s, start, s.first, s.first)


def sum_backward_w(dw, xs, dys, stride, padding):
    """dw = the sum of conv_dw(x, dy) over one or two pairs."""
    (_, O, C, kH, kW), dtype = dw.shape, dw.dtype
    s, start = lists(BACKWARD_W, xs[0], dys[0], dw.shape, stride, padding, dtype)
    f = np.empty((1, 1), dtype)
    backward_w(BACKWARD_W, len(xs), xs[0], xs[-1], dys[0], dys[-1], f, f, dw, *s, start, *filter_lists(O, C, kH * kW, s.width))


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
