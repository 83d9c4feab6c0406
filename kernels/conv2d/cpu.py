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

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]

FORWARD, BACKWARD_X, BACKWARD_W = 0, 1, 2
FEW = 8                  # channels below which the taps of a patch are summed in one go, from a copy of x with its zeros around it
ROWS = 256               # positions that a thread takes at a time, give or take an image


# ---- the filters as rows of numbers that are added up together ------------------------------------------------------------

@compiled("lines! rows whole whole whole")
def filter_rows(rows, w, O, C, what):
    """For each task, of w (O, C, taps): rows (tap, c) of O numbers going forward, rows (tap, o) of C numbers going back; then zeros."""
    taps = w.shape[1] // (O * C)
    for t in prange(len(w)):
        if what == FORWARD:
            width = rows.shape[1] // (taps * C)
            for p in range(taps):
                for c in range(C):
                    for o in range(width):
                        rows[t, (p * C + c) * width + o] = w[t, (o * C + c) * taps + p] if o < O else 0
        else:
            width = rows.shape[1] // (taps * O)
            for p in range(taps):
                for o in range(O):
                    for c in range(width):
                        rows[t, (p * O + o) * width + c] = w[t, (o * C + c) * taps + p] if c < C else 0


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
