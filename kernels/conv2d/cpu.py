"""2-D convolution on a CPU: see reference.py for what is computed. Arrays come channels last: x (T, N, H, W, C), y (T, N, Ho, Wo, O).

One loop does it all, `accumulate`: rows of c += (numbers of a) times (rows of b), with lists of offsets to say which. With w the filters of
one tap (p, q) of the kernel, x[pixel] and y[position] rows of channels, and the sum over the positions that see a pixel through the tap,

    forward      y[position] += sum_c x[pixel, c] w[c]
    backward_x   dx[pixel]   += sum_o dy[position, o] w'[o]
    backward_w   dw[c]       += sum_position x[pixel, c] dy[position]

Only pixels inside the image are listed, so no zero is ever multiplied. The R-passes are sums of two products: twice the same, in turn.

What came before, for 32 tasks of 5 images, 64 channels, one thread:
  v1  a patch matrix for all tasks by NumPy, matmul (reference.py)
  v2  patch matrix of one task, channels last so that copies are long runs, and one BLAS product from inside Numba
  v3  this: no patch matrix, no BLAS
"""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled
from refmaml.kernels.register_tiles import VECTOR, accumulate, padded, transpose

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]

FORWARD, BACKWARD_X, BACKWARD_W = 0, 1, 2
FEW = 8                  # channels below which the taps of a patch are summed in one go, from a copy of x with its zeros around it
ROWS = 256               # positions that a thread takes at a time, give or take an image


# ---- the filters as rows of numbers that are added up together ------------------------------------------------------------

@njit
def tap_rows(taps, C, width):
    """Where in rows (tap, c) of `width` numbers the row of each (c, tap) begins: filters come with their taps innermost."""
    rows = np.empty(C * taps, np.int64)
    for c in range(C):
        for p in range(taps):
            rows[c * taps + p] = (p * C + c) * width
    return rows


@compiled("lines! rows whole whole whole")
def filter_rows(rows, w, O, C, what):
    """For each task, of w (O, C, taps): rows (tap, c) of O numbers going forward, rows (tap, o) of C numbers going back; then zeros."""
    taps = w.shape[1] // (O * C)
    width = rows.shape[1] // (taps * (C if what == FORWARD else O))
    forward_width = width if what == FORWARD else O
    filters, by_tap = np.arange(O) * (C * taps), tap_rows(taps, C, forward_width)
    for t in prange(len(w)):
        if width > (O if what == FORWARD else C):
            rows[t, :] = 0
        if what == FORWARD:
            transpose(rows[t], by_tap, w[t], filters)
        else:
            forward_rows = np.empty(w.shape[1], w.dtype)
            transpose(forward_rows, by_tap, w[t], filters)
            for p in range(taps):
                transpose(rows[t, p * O * width:], np.arange(O) * width, forward_rows[p * C * O:], np.arange(C) * O)


# ---- which pixel each position sees through each tap -------------------------------------------------------------------

@njit
def sights(n, image, out, kernel, stride, start, x_width, y_width):
    """Of n images, for tap after tap: the offsets of each pixel seen and of the position that sees it; and where each tap's begin."""
    (H, W), (Ho, Wo), (kH, kW), (sH, sW), (top, left) = image, out, kernel, stride, start
    pixels, positions = np.empty(kH * kW * n * Ho * Wo, np.int64), np.empty(kH * kW * n * Ho * Wo, np.int64)
    first, e = np.zeros(kH * kW + 1, np.int64), 0
    for p in range(kH):
        for q in range(kW):
            for m in range(n):
                for i in range(Ho):
                    for j in range(Wo):
                        h, w = sH * i + p - top, sW * j + q - left
                        if h >= 0 and h < H and w >= 0 and w < W:
                            pixels[e] = ((m * H + h) * W + w) * x_width
                            positions[e] = ((m * Ho + i) * Wo + j) * y_width
                            e += 1
            first[p * kW + q + 1] = e
    return first, pixels, positions


@njit
def with_border(xs, n, x, image, bordered, start, C):
    """Fills xs with n images (H, W, C) and a border of zeros."""
    (H, W), (Hp, Wp), (top, left) = image, bordered, start
    xs[:] = 0
    for m in range(n):
        for h in range(min(H, Hp - top)):
            for e in range(min(W, Wp - left) * C):
                xs[((m * Hp + top + h) * Wp + left) * C + e] = x[(m * H + h) * W * C + e]


@njit
def some_images(x, first, n, few, image, bordered, start, C):
    """n images from `first` on in one line; where channels are few, a copy with a border."""
    size = image[0] * image[1] * C
    part = x[first * size:(first + n) * size]
    if few:
        copy = np.empty(n * bordered[0] * bordered[1] * C, x.dtype)
        with_border(copy, n, part, image, bordered, start, C)
        return copy
    return part


@njit
def widened(a, rows, O, width):
    """Rows of O numbers as rows of `width`, the rest 0."""
    if width == O:
        return a
    wide = np.zeros(rows * width, a.dtype)
    for r in range(rows):
        for o in range(O):
            wide[r * width + o] = a[r * O + o]
    return wide


# ---- the products ----------------------------------------------------------------------------------------------------

@njit
def spread(out, rows, O, width, parts, a, a2, f, f2, rows_out, rows_a, first, n, m, steps):
    """out (rows, O) = for each tap, numbers of a times rows of f; and of a2 and f2. Lists were made for n images, here are m."""
    K, c = len(steps), out if width == O else np.empty(rows * width, out.dtype)
    steps_f = np.arange(K) * width
    c[:] = 0
    for tap in range(len(first) - 1):
        last, at = first[tap] + (first[tap + 1] - first[tap]) // n * m, tap * K * width
        accumulate(c, a, f[at:], rows_out, rows_a, first[tap], last, steps, steps_f, 0, K, width)
        if parts == 2:
            accumulate(c, a2, f2[at:], rows_out, rows_a, first[tap], last, steps, steps_f, 0, K, width)
    if width != O:
        for r in range(rows):
            for o in range(O):
                out[r * O + o] = c[r * width + o]


@njit
def collect(c, x, dy, pixels, positions, first, n, m, steps, width):
    """c[tap, channel] += the sum over positions of what the tap sees times dy."""
    K = len(steps)
    rows_c = np.arange(K) * width
    for tap in range(len(first) - 1):
        last = first[tap] + (first[tap + 1] - first[tap]) // n * m
        accumulate(c[tap * K * width:], x, dy, rows_c, steps, 0, K, pixels, positions, first[tap], last, width)


@njit
def backward_w_task(dw, N, parts, x, x2, dy, dy2, lists, n, steps, few, image, bordered, start, C, out, O, width):
    """dw (O, C, taps) of a task, in a row."""
    (first, pixels, positions), taps, L = lists, len(dw) // (O * C), out[0] * out[1]
    c = np.zeros(taps * C * width, x.dtype)
    for lo in range(0, N, n):
        m = min(n, N - lo)
        for part in range(parts):
            seen = some_images(x2 if part else x, lo, m, few, image, bordered, start, C)
            by = widened((dy2 if part else dy)[lo * L * O:(lo + m) * L * O], m * L, O, width)
            collect(c, seen, by, pixels, positions, first, n, m, steps, width)
    transpose(dw, np.arange(O) * (C * taps), c, tap_rows(taps, C, width))


@njit
def spread_unit(what, unit, N, parts, x, x2, y, y2, f, f2, lists, n, steps, few, image, bordered, start, C, out, O, width):
    """y, or dx, of n images of one task."""
    (first, pixels, positions), groups, L = lists, (N + n - 1) // n, out[0] * out[1]
    t, lo = unit // groups, unit % groups * n
    m, ft, f2t = min(n, N - lo), f[t % len(f)], f2[t % len(f2)]
    if what == FORWARD:
        y_part = y[(t * N + lo) * L * O:(t * N + lo + m) * L * O]
        a = some_images(x, t * N + lo, m, few, image, bordered, start, C)
        a2 = some_images(x2, t * N + lo, m, few, image, bordered, start, C) if parts == 2 else a
        spread(y_part, m * L, O, width, parts, a, a2, ft, f2t, positions, pixels, first, n, m, steps)
    else:
        x_part = some_images(x, t * N + lo, m, False, image, bordered, start, C)
        span = slice((t * N + lo) * L * O, (t * N + lo + m) * L * O)
        spread(x_part, m * image[0] * image[1], C, width, parts, y[span], y2[span], ft, f2t, pixels, positions, first, n, m, steps)


@compiled("whole whole images images images! images lines lines rows pair pair pair")
def product(what, parts, x, x2, y, y2, f, f2, dw, kernel, stride, start):
    """Whichever of y, x and dw `what` says from the other two."""
    T, N, H, W, C = x.shape
    out, O = (y.shape[2], y.shape[3]), y.shape[4]
    n = max(min(N, (ROWS + out[0] * out[1] // 2) // (out[0] * out[1])), 1)
    few = C < FEW and what != BACKWARD_X
    bordered = (stride[0] * (out[0] - 1) + kernel[0], stride[1] * (out[1] - 1) + kernel[1])
    width = padded(C if what == BACKWARD_X else O, x)
    if few:
        lists = sights(n, bordered, out, (1, 1), stride, (0, 0), C, width)
        steps = np.empty(kernel[0] * kernel[1] * C, np.int64)
        for k in range(len(steps)):
            steps[k] = (k // (kernel[1] * C) * bordered[1]) * C + k % (kernel[1] * C)
    elif what == BACKWARD_X:
        lists, steps = sights(n, (H, W), out, kernel, stride, start, width, O), np.arange(O)
    else:
        lists, steps = sights(n, (H, W), out, kernel, stride, start, C, width), np.arange(C)
    xs, x2s, ys, y2s = x.reshape(x.size), x2.reshape(x.size), y.reshape(y.size), y2.reshape(y.size)
    size_x, size_y = x.size // T, y.size // T
    for unit in prange(T if what == BACKWARD_W else T * ((N + n - 1) // n)):
        if what == BACKWARD_W:
            of_x, of_y = slice(unit * size_x, (unit + 1) * size_x), slice(unit * size_y, (unit + 1) * size_y)
            backward_w_task(dw[unit], N, parts, xs[of_x], x2s[of_x], ys[of_y], y2s[of_y], lists, n, steps, few,
                            (H, W), bordered, start, C, out, O, width)
        else:
            spread_unit(what, unit, N, parts, xs, x2s, ys, y2s, f, f2, lists, n, steps, few, (H, W), bordered, start, C, out, O, width)


forward = product.filling("whole whole images images images! images lines lines rows pair pair pair", grain=512)
backward_x = product.filling("whole whole images! images images images lines lines rows pair pair pair", grain=512)
backward_w = product.filling("whole whole images images images images lines lines rows! pair pair pair", grain=512)


# ---- what a kernel set offers ----------------------------------------------------------------------------------------

def rows_of(w, dtype, what):
    """`filter_rows` of w (T, O, C, kH, kW), allocated."""
    T, O, C, kH, kW = w.shape
    summed, width = (C, O) if what == FORWARD else (O, C)
    rows = np.empty((T, kH * kW * summed * wide(width, dtype)), dtype)
    filter_rows(rows, w, O, C, what)
    return rows


def wide(width, dtype):
    """As `padded`, outside Numba."""
    size = VECTOR // dtype.itemsize
    return -(-width // size) * size


def corner(padding):
    """(top, left) of the padding; what lies beyond the other ends follows from the extents."""
    return padding[0][0], padding[1][0]


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    f = rows_of(w, y.dtype, FORWARD)
    forward(FORWARD, 1, x, x, y, y, f, f, f, w.shape[3:], stride, corner(padding))


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    f = rows_of(w, dx.dtype, BACKWARD_X)
    backward_x(BACKWARD_X, 1, dx, dx, dy, dy, f, f, f, w.shape[3:], stride, corner(padding))


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    f = np.empty((1, 1), dw.dtype)
    backward_w(BACKWARD_W, 1, x, x, dy, dy, f, f, dw, dw.shape[3:], stride, corner(padding))


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    f, rf = rows_of(w, ry.dtype, FORWARD), rows_of(rw, ry.dtype, FORWARD)
    forward(FORWARD, 2, rx, x, ry, ry, f, rf, f, w.shape[3:], stride, corner(padding))


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    f, rf = rows_of(w, rdx.dtype, BACKWARD_X), rows_of(rw, rdx.dtype, BACKWARD_X)
    backward_x(BACKWARD_X, 2, rdx, rdx, rdy, dy, f, rf, f, w.shape[3:], stride, corner(padding))


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    f = np.empty((1, 1), rdw.dtype)
    backward_w(BACKWARD_W, 2, rx, x, dy, rdy, f, f, rdw, rdw.shape[3:], stride, corner(padding))
