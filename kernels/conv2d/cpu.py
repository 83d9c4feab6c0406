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
def filter_matrix(wm, w, C):
    """wm (O, kH kW C) = the filters (O, C, kH, kW), given in a row, in the order of a patch."""
    O, K = wm.shape
    taps = K // C
    for o in range(O):
        target, source = wm[o], w[o * K:(o + 1) * K]
        for p in range(taps):
            for c in range(C):
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
def gather(seen, x, out, kernel, stride, start):
    """Fills `seen` with a row of kH kW C values for each patch of the images x (n, H, W, C)."""
    n, H, W, C = x.shape
    (Ho, Wo), (kH, kW), (sH, sW), (top, left) = out, kernel, stride, start
    lines, run = x.reshape(n, H, W * C), kW * C
    for m in range(n):
        for i in range(Ho):
            for j in range(Wo):
                w = sW * j - left
                skip = min(max(-w, 0), kW) * C                     # a run may begin left of the image, and end right of it
                end = max(min(W - w, kW) * C, skip)
                row = seen[(m * Ho + i) * Wo + j]
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
def paste(target, source):
    """target (rows, O) = source (n, Ho, Wo, O), a row for each position."""
    rows, O = target.shape
    lines = source.reshape(rows, O)
    for r in range(rows):
        for o in range(O):
            target[r, o] = lines[r, o]


@njit(error_model="numpy")
def images_per_tile(N, positions, columns, itemsize):
    """How many images' patches fit in a tile, evened out."""
    most = min(max(TILE // (positions * columns * itemsize), 1), N)
    tiles = (N + most - 1) // most
    return (N + tiles - 1) // tiles


@njit(error_model="numpy")
def forward_tile(y, xs, wm, kernel, stride, start):
    """y (n, Ho, Wo, O) = [patches of each of xs] wm', wm (O, kH kW C for each of xs)."""
    n, Ho, Wo, O = y.shape
    K = wm.shape[1] // len(xs)
    seen = np.empty((n * Ho * Wo, wm.shape[1]), y.dtype)
    for part in range(len(xs)):
        gather(seen[:, part * K:(part + 1) * K], xs[part], (Ho, Wo), kernel, stride, start)
    np.dot(seen, wm.T, y.reshape(n * Ho * Wo, O))
