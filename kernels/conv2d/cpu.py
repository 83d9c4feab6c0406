"""2-D convolution on a CPU: see reference.py for what is computed. Arrays come channels last: x (T, N, H, W, C), y (T, N, Ho, Wo, O).

A patch of x is kH runs of kW C neighbours, so the patch matrix of a few images is made by copying runs, small enough to stay in the
second-level cache, and one single-threaded BLAS product eats it at once. Threads take tiles of images, or tasks.

The R-passes are sums of two products. Each is one product of twice the size, as matrices side by side:

    ry        = conv(rx, w) + conv(x, rw)            = [patches of rx, patches of x] [w, rw]'
    patches of rdx, from conv_dx(rdy, w) + conv_dx(dy, rw) = [rdy, dy] [w; rw]
    rdw       = conv_dw(rx, dy) + conv_dw(x, rdy)    = [dy; rdy]' [patches of rx; patches of x]

so every kernel below takes one or two pairs of operands: `parts` says how many, and with one the second pair is not read.
"""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]

TILE = 768 * 1024        # bytes of patches at a time


@njit(error_model="numpy")
def filter_matrix(wm, row, column, w, C, K):
    """The block (O, K = kH kW C) of wm from (row, column) on: the filters (O, C, kH, kW), given in a row, in the order of a patch."""
    taps = K // C
    for o in range(len(w) // K):
        target, source = wm[row + o, column:column + K], w[o * K:(o + 1) * K]
        for c in range(C):
            for p in range(taps):
                target[p * C + c] = source[c * taps + p]


@njit(error_model="numpy")
def filters_in_a_row(w, wm, C):
    """The inverse of `filter_matrix`."""
    O, K = wm.shape
    taps = K // C
    for o in range(O):
        source, target = wm[o], w[o * K:(o + 1) * K]
        for p in range(taps):
            for c in range(C):
                target[c * taps + p] = source[p * C + c]


@njit(error_model="numpy")
def gather(seen, first, column, x, out, kernel, stride, start):
    """The block of `seen` from (first, column) on: a row of kH kW C values for each patch of the images x (n, H, W, C)."""
    n, H, W, C = x.shape
    (Ho, Wo), (kH, kW), (sH, sW), (top, left) = out, kernel, stride, start
    lines, run = x.reshape(n, H, W * C), kW * C
    for m in range(n):
        for i in range(Ho):
            for j in range(Wo):
                w = sW * j - left
                skip = min(max(-w, 0), kW) * C                     # a run may begin left of the image, and end right of it
                end = max(min(W - w, kW) * C, skip)
                row = seen[first + (m * Ho + i) * Wo + j, column:column + kH * run]
                for p in range(kH):
                    h = sH * i + p - top
                    target = row[p * run:(p + 1) * run]
                    if h < 0 or h >= H:
                        target[:] = 0
                        continue
                    target[:skip] = 0
                    target[end:] = 0
                    source, middle = lines[m, h, w * C + skip:w * C + end], target[skip:end]
                    for e in range(len(source)):
                        middle[e] = source[e]


@njit(error_model="numpy")
def scatter(dx, dseen, out, kernel, stride, start):
    """The transpose of `gather`: dx[pixel] = the sum of what every patch that saw it holds, in the order of the patches."""
    n, H, W, C = dx.shape
    (Ho, Wo), (kH, kW), (sH, sW), (top, left) = out, kernel, stride, start
    lines, run = dx.reshape(n, H, W * C), kW * C
    dx[...] = 0
    for m in range(n):
        for i in range(Ho):
            for j in range(Wo):
                w = sW * j - left
                skip = min(max(-w, 0), kW) * C
                end = max(min(W - w, kW) * C, skip)
                row = dseen[(m * Ho + i) * Wo + j]
                for p in range(kH):
                    h = sH * i + p - top
                    if 0 <= h < H:
                        source, target = row[p * run + skip:p * run + end], lines[m, h, w * C + skip:w * C + end]
                        for e in range(len(source)):
                            target[e] += source[e]


@njit(error_model="numpy")
def paste(target, row, column, source):
    """The block of `target` from (row, column) on = source (n, Ho, Wo, O), a row for each position."""
    O = source.shape[3]
    lines = source.reshape(source.size // O, O)
    for r in range(len(lines)):
        line, from_ = target[row + r, column:column + O], lines[r]
        for o in range(O):
            line[o] = from_[o]


@njit(error_model="numpy")
def images_per_tile(N, positions, columns, itemsize):
    """How many images' patches fit in a tile, evened out."""
    most = min(max(TILE // (positions * columns * itemsize), 1), N)
    tiles = (N + most - 1) // most
    return (N + tiles - 1) // tiles


@njit(error_model="numpy")
def forward_tile(tile, n, y, x, x2, wm, parts, kernel, stride, start):
    """y of n images of a task = [patches of x, patches of x2] wm', wm (1 or T, O, parts kH kW C)."""
    N, Ho, Wo, O = y.shape[1:]
    K, tiles = wm.shape[2] // parts, (N + n - 1) // n
    t, lo = tile // tiles, tile % tiles * n
    hi = min(lo + n, N)
    seen = np.empty(((hi - lo) * Ho * Wo, wm.shape[2]), y.dtype)
    gather(seen, 0, 0, x[t, lo:hi], (Ho, Wo), kernel, stride, start)
    if parts == 2:
        gather(seen, 0, K, x2[t, lo:hi], (Ho, Wo), kernel, stride, start)
    np.dot(seen, wm[t % len(wm)].T, y[t, lo:hi].reshape(len(seen), O))


@compiled("images! images images rows rows whole pair pair pair", blas=True)
def forward(y, x, x2, w, w2, parts, kernel, stride, start):
    """y = conv(x, w) + conv(x2, w2)."""
    T, N, Ho, Wo, O = y.shape
    C, K = x.shape[4], w.shape[1] // O
    wm = np.empty((max(len(w), len(w2)), O, parts * K), y.dtype)
    for t in prange(len(wm)):
        filter_matrix(wm[t], 0, 0, w[t % len(w)], C, K)
        if parts == 2:
            filter_matrix(wm[t], 0, K, w2[t % len(w2)], C, K)
    n = images_per_tile(N, Ho * Wo, parts * K, y.itemsize)
    for tile in prange(T * ((N + n - 1) // n)):
        forward_tile(tile, n, y, x, x2, wm, parts, kernel, stride, start)


@njit(error_model="numpy")
def backward_x_tile(tile, n, dx, dy, dy2, wm, parts, kernel, stride, start):
    """dx of n images of a task = the patches [dy, dy2] wm put back, wm (1 or T, parts O, kH kW C)."""
    N, Ho, Wo, O = dy.shape[1:]
    tiles = (N + n - 1) // n
    t, lo = tile // tiles, tile % tiles * n
    hi = min(lo + n, N)
    rows = (hi - lo) * Ho * Wo
    side, dseen = np.empty((rows, parts * O), dx.dtype), np.empty((rows, wm.shape[2]), dx.dtype)
    paste(side, 0, 0, dy[t, lo:hi])
    if parts == 2:
        paste(side, 0, O, dy2[t, lo:hi])
    np.dot(side, wm[t % len(wm)], dseen)
    scatter(dx[t, lo:hi], dseen, (Ho, Wo), kernel, stride, start)


@compiled("images! images images rows rows whole pair pair pair", blas=True)
def backward_x(dx, dy, dy2, w, w2, parts, kernel, stride, start):
    """dx = conv_dx(dy, w) + conv_dx(dy2, w2)."""
    T, N, Ho, Wo, O = dy.shape
    C, K = dx.shape[4], w.shape[1] // O
    wm = np.empty((max(len(w), len(w2)), parts * O, K), dx.dtype)
    for t in prange(len(wm)):
        filter_matrix(wm[t], 0, 0, w[t % len(w)], C, K)
        if parts == 2:
            filter_matrix(wm[t], O, 0, w2[t % len(w2)], C, K)
    n = images_per_tile(N, Ho * Wo, K, dx.itemsize)
    for tile in prange(T * ((N + n - 1) // n)):
        backward_x_tile(tile, n, dx, dy, dy2, wm, parts, kernel, stride, start)


@njit(error_model="numpy")
def backward_w_task(t, n, dw, x, x2, dy, dy2, parts, kernel, stride, start):
    """dw of a task = the sum over tiles of n images, in their order, of [dy; dy2]' [patches of x; patches of x2]."""
    N, Ho, Wo, O = dy.shape[1:]
    C, K = x.shape[4], dw.shape[1] // O
    seen, side = np.empty((parts * n * Ho * Wo, K), x.dtype), np.empty((parts * n * Ho * Wo, O), x.dtype)
    dwm, term = np.zeros((O, K), x.dtype), np.empty((O, K), x.dtype)
    for lo in range(0, N, n):
        hi = min(lo + n, N)
        rows = (hi - lo) * Ho * Wo
        gather(seen, 0, 0, x[t, lo:hi], (Ho, Wo), kernel, stride, start)
        paste(side, 0, 0, dy[t, lo:hi])
        if parts == 2:
            gather(seen, rows, 0, x2[t, lo:hi], (Ho, Wo), kernel, stride, start)
            paste(side, rows, 0, dy2[t, lo:hi])
        np.dot(side[:parts * rows].T, seen[:parts * rows], term)
        dwm += term
    filters_in_a_row(dw[t], dwm, C)


@compiled("rows! images images images images whole pair pair pair", blas=True)
def backward_w(dw, x, x2, dy, dy2, parts, kernel, stride, start):
    """dw = conv_dw(x, dy) + conv_dw(x2, dy2), one per task."""
    T, N, Ho, Wo, O = dy.shape
    n = images_per_tile(N, Ho * Wo, parts * dw.shape[1] // O, x.itemsize)
    for t in prange(T):
        backward_w_task(t, n, dw, x, x2, dy, dy2, parts, kernel, stride, start)


# ---- what a kernel set offers --------------------------------------------------------------------------------------
# kernel: its extents, which a row of numbers no longer tells. start: (top, left) padding; what lies beyond the other ends follows.

def start(padding):
    return padding[0][0], padding[1][0]


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    forward(y, x, x, w, w, 1, w.shape[3:], stride, start(padding))


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    backward_x(dx, dy, dy, w, w, 1, w.shape[3:], stride, start(padding))


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    backward_w(dw, x, x, dy, dy, 1, dw.shape[3:], stride, start(padding))


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    forward(ry, rx, x, w, rw, 2, w.shape[3:], stride, start(padding))


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    backward_x(rdx, rdy, dy, w, rw, 2, w.shape[3:], stride, start(padding))


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    backward_w(rdw, rx, x, dy, rdy, 2, rdw.shape[3:], stride, start(padding))
