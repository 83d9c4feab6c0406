"""2-D convolution on a CPU: see reference.py for what is computed. Arrays come channels last: x (T, N, H, W, C), y (T, N, Ho, Wo, O).

A patch of x is kH runs of kW C neighbours, so the patch matrix of a few images is made by copying runs, small enough to stay in the
second-level cache, and one single-threaded BLAS product eats it at once. Threads take (task, images) pairs.
"""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]

TILE = 768 * 1024        # bytes of patches at a time
SMALL = 100_000          # multiplications below which waking another thread costs more than it brings


@njit(error_model="numpy")
def filter_matrices(first, end, wm, w, C):
    """wm[t] (O, kH kW C) = the filters (O, C, kH, kW) of tasks first .. end, each in a row of w, in the order of a patch."""
    O, K = wm.shape[1:]
    taps = K // C
    for t in range(first, end):
        for o in range(O):
            target, source = wm[t, o], w[t % len(w), o * K:(o + 1) * K]
            for p in range(taps):
                for c in range(C):
                    target[p * C + c] = source[c * taps + p]


@njit(error_model="numpy")
def from_matrix(w, wm, C):
    """The inverse of `filter_matrices`, for one task."""
    O, K = wm.shape
    taps = K // C
    for o in range(O):
        row, target = wm[o], w[o * K:(o + 1) * K]
        for p in range(taps):
            for c in range(C):
                target[c * taps + p] = row[p * C + c]


@njit(error_model="numpy")
def gather(seen, column, x, out, kernel, stride, start):
    """Columns column .. column + kH kW C of `seen`: a row for each patch of the images x (n, H, W, C)."""
    n, H, W, C = x.shape
    (Ho, Wo), (kH, kW), (sH, sW), top, left = out, kernel, stride, start[0], start[1]
    lines = x.reshape(n, H, W * C)
    run = kW * C
    for m in range(n):
        for i in range(Ho):
            for j in range(Wo):
                w = sW * j - left
                skip = min(max(-w, 0), kW) * C                     # zeros at the left of the run, and where it ends
                end = max(min(W - w, kW) * C, skip)
                row = seen[(m * Ho + i) * Wo + j, column:column + kH * run]
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
    (Ho, Wo), (kH, kW), (sH, sW), top, left = out, kernel, stride, start[0], start[1]
    lines = dx.reshape(n, H, W * C)
    run = kW * C
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
def images_per_tile(N, positions, columns, itemsize):
    """How many images' patches fit in a tile, evened out."""
    most = min(max(TILE // (positions * columns * itemsize), 1), N)
    tiles = (N + most - 1) // most
    return (N + tiles - 1) // tiles


# ---- the passes: a range of tiles or tasks each, and the loop of threads over it ------------------------------------
# xs is (x,) or, for the sum of two products, (rx, x); so are dys and the blocks of the filter matrix wm.

@njit(error_model="numpy")
def forward_tiles(first, end, y, xs, wm, n, kernel, stride, start):
    """y of tiles first .. end = [patches of xs] wm', wm (1 or T, O, kH kW C for each of xs)."""
    N, Ho, Wo, O = y.shape[1:]
    tiles, K = (N + n - 1) // n, wm.shape[2] // len(xs)
    seen = np.empty((n * Ho * Wo, wm.shape[2]), y.dtype)
    for tile in range(first, end):
        t, lo = tile // tiles, tile % tiles * n
        hi = min(lo + n, N)
        rows = (hi - lo) * Ho * Wo
        for part in range(len(xs)):
            gather(seen, part * K, xs[part][t, lo:hi], (Ho, Wo), kernel, stride, start)
        np.dot(seen[:rows], wm[t % len(wm)].T, y[t, lo:hi].reshape(rows, O))


@njit(error_model="numpy")
def backward_x_tiles(first, end, dx, dys, wm, n, kernel, stride, start):
    """dx of tiles first .. end = the patches [dys] wm put back, wm (1 or T, O for each of dys, kH kW C)."""
    N, Ho, Wo, O = dys[0].shape[1:]
    tiles, L = (N + n - 1) // n, Ho * Wo
    dy, dseen = np.empty((n * L, wm.shape[1]), dx.dtype), np.empty((n * L, wm.shape[2]), dx.dtype)
    for tile in range(first, end):
        t, lo = tile // tiles, tile % tiles * n
        hi = min(lo + n, N)
        rows = (hi - lo) * L
        for part in range(len(dys)):
            dy[:rows, part * O:(part + 1) * O] = dys[part][t, lo:hi].reshape(rows, O)
        np.dot(dy[:rows], wm[t % len(wm)], dseen[:rows])
        scatter(dx[t, lo:hi], dseen, (Ho, Wo), kernel, stride, start)


@njit(error_model="numpy")
def backward_w_tasks(first, end, dw, xs, dys, n, kernel, stride, start):
    """dw of tasks first .. end = sum over xs and tiles, in this order, of dy' [patches of x]."""
    N, Ho, Wo, O = dys[0].shape[1:]
    C, L, parts = xs[0].shape[4], Ho * Wo, len(xs)
    K = kernel[0] * kernel[1] * C
    seen, dy = np.empty((parts * n * L, K), xs[0].dtype), np.empty((parts * n * L, O), xs[0].dtype)
    dwm, term = np.empty((O, K), seen.dtype), np.empty((O, K), seen.dtype)
    for t in range(first, end):
        for lo in range(0, N, n):
            hi = min(lo + n, N)
            rows = (hi - lo) * L
            for part in range(parts):
                gather(seen[part * rows:], 0, xs[part][t, lo:hi], (Ho, Wo), kernel, stride, start)
                dy[part * rows:(part + 1) * rows] = dys[part][t, lo:hi].reshape(rows, O)
            np.dot(dy[:parts * rows].T, seen[:parts * rows], term if lo else dwm)
            if lo:
                dwm += term
        from_matrix(dw[t], dwm, C)


@compiled("images! images rows pair pair pair", blas=True)
def forward(y, x, w, stride, start, kernel):
    T, N, Ho, Wo, O = y.shape
    C, K = x.shape[4], w.shape[1] // O
    wm = np.empty((len(w), O, K), y.dtype)
    n = images_per_tile(N, Ho * Wo, K, y.itemsize)
    tiles = T * ((N + n - 1) // n)
    if y.size * K < SMALL:
        filter_matrices(0, len(w), wm, w, C)
        forward_tiles(0, tiles, y, (x,), wm, n, kernel, stride, start)
        return
    for t in prange(len(w)):
        filter_matrices(t, t + 1, wm, w, C)
    for tile in prange(tiles):
        forward_tiles(tile, tile + 1, y, (x,), wm, n, kernel, stride, start)


@compiled("images! images images rows rows pair pair pair", blas=True)
def r_forward(ry, x, rx, w, rw, stride, start, kernel):
    T, N, Ho, Wo, O = ry.shape
    C, K = x.shape[4], w.shape[1] // O
    wm = np.empty((max(len(w), len(rw)), O, 2 * K), ry.dtype)        # ry = [patches of rx, patches of x] [w, rw]'
    n = images_per_tile(N, Ho * Wo, 2 * K, ry.itemsize)
    tiles = T * ((N + n - 1) // n)
    if 2 * ry.size * K < SMALL:
        filter_matrices(0, len(wm), wm[:, :, :K], w, C)
        filter_matrices(0, len(wm), wm[:, :, K:], rw, C)
        forward_tiles(0, tiles, ry, (rx, x), wm, n, kernel, stride, start)
        return
    for t in prange(len(wm)):
        filter_matrices(t, t + 1, wm[:, :, :K], w, C)
        filter_matrices(t, t + 1, wm[:, :, K:], rw, C)
    for tile in prange(tiles):
        forward_tiles(tile, tile + 1, ry, (rx, x), wm, n, kernel, stride, start)


@compiled("images! images rows pair pair pair", blas=True)
def backward_x(dx, dy, w, stride, start, kernel):
    T, N, Ho, Wo, O = dy.shape
    C, K = dx.shape[4], w.shape[1] // O
    wm = np.empty((len(w), O, K), dx.dtype)
    n = images_per_tile(N, Ho * Wo, K, dx.itemsize)
    tiles = T * ((N + n - 1) // n)
    if dy.size * K < SMALL:
        filter_matrices(0, len(w), wm, w, C)
        backward_x_tiles(0, tiles, dx, (dy,), wm, n, kernel, stride, start)
        return
    for t in prange(len(w)):
        filter_matrices(t, t + 1, wm, w, C)
    for tile in prange(tiles):
        backward_x_tiles(tile, tile + 1, dx, (dy,), wm, n, kernel, stride, start)


@compiled("images! images images rows rows pair pair pair", blas=True)
def r_backward_x(rdx, dy, rdy, w, rw, stride, start, kernel):
    T, N, Ho, Wo, O = dy.shape
    C, K = rdx.shape[4], w.shape[1] // O
    wm = np.empty((max(len(w), len(rw)), 2 * O, K), rdx.dtype)       # patches of rdx = [rdy, dy] [w; rw]
    n = images_per_tile(N, Ho * Wo, K, rdx.itemsize)
    tiles = T * ((N + n - 1) // n)
    if 2 * dy.size * K < SMALL:
        filter_matrices(0, len(wm), wm[:, :O], w, C)
        filter_matrices(0, len(wm), wm[:, O:], rw, C)
        backward_x_tiles(0, tiles, rdx, (rdy, dy), wm, n, kernel, stride, start)
        return
    for t in prange(len(wm)):
        filter_matrices(t, t + 1, wm[:, :O], w, C)
        filter_matrices(t, t + 1, wm[:, O:], rw, C)
    for tile in prange(tiles):
        backward_x_tiles(tile, tile + 1, rdx, (rdy, dy), wm, n, kernel, stride, start)


@compiled("rows! images images pair pair pair", blas=True)
def backward_w(dw, x, dy, stride, start, kernel):
    T, N, Ho, Wo, O = dy.shape
    K = dw.shape[1] // O
    n = images_per_tile(N, Ho * Wo, K, x.itemsize)
    if dy.size * K < SMALL:
        backward_w_tasks(0, T, dw, (x,), (dy,), n, kernel, stride, start)
        return
    for t in prange(T):
        backward_w_tasks(t, t + 1, dw, (x,), (dy,), n, kernel, stride, start)


@compiled("rows! images images images images pair pair pair", blas=True)
def r_backward_w(rdw, x, rx, dy, rdy, stride, start, kernel):
    T, N, Ho, Wo, O = dy.shape
    K = rdw.shape[1] // O
    n = images_per_tile(N, Ho * Wo, 2 * K, x.itemsize)
    if 2 * dy.size * K < SMALL:
        backward_w_tasks(0, T, rdw, (rx, x), (dy, rdy), n, kernel, stride, start)
        return
    for t in prange(T):
        backward_w_tasks(t, t + 1, rdw, (rx, x), (dy, rdy), n, kernel, stride, start)


# ---- what a kernel set offers: the kernel's extents, which a row of numbers no longer tells, are passed along ---------------

def start(padding):
    """(top, left) of ((top, bottom), (left, right)): what lies beyond the other end follows from the extents."""
    return padding[0][0], padding[1][0]


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    forward(y, x, w, stride, start(padding), w.shape[3:])


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    backward_x(dx, dy, w, stride, start(padding), w.shape[3:])


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    backward_w(dw, x, dy, stride, start(padding), dw.shape[3:])


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    r_forward(ry, x, rx, w, rw, stride, start(padding), w.shape[3:])


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    r_backward_x(rdx, dy, rdy, w, rw, stride, start(padding), w.shape[3:])


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    r_backward_w(rdw, x, rx, dy, rdy, stride, start(padding), rdw.shape[3:])
