"""The three products of a convolution for one task. All arrays are flat.

Filters come as rows: (tap, c) of O numbers, or for backward_x (tap, o) of C numbers.
cpu.py has the formulas and the history.
"""

import numpy as np

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
)
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.gemm_microkernel import accumulate
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part, tail


@inner()
def with_border(x, n, block):
    """n images (H, W, C), each with a border of zeros; x itself if `block` has none."""
    C, H, W = block[1], block[2], block[3]
    Hp, Wp, top, left = block[8], block[9], block[10], block[11]
    if Hp == 0:
        return x
    xs = np.zeros(n * Hp * Wp * C, x.dtype)
    for m in range(n):
        for h in range(min(H, Hp - top)):
            for e in range(min(W, Wp - left) * C):
                xs[((m * Hp + top + h) * Wp + left) * C + e] = x[(m * H + h) * W * C + e]
    return xs


# fmt: off
@external("F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], int64[::1], int64")
def product(c, x, x2, y, y2, f, f2, block, N):
    """c = the product of the other two of x, y and f, for N images.

    c is y, dx or the rows of dw, as `block` says. If x2, y2, f2 are not empty, their
    product is added.
    """
    n, C, O = block[N_IMAGES], block[1], block[4]
    taps, what, K = block[N_TAPS], block[WHAT], block[SUMMED]
    size_x, size_y, covered = C * block[2] * block[3], O * block[5] * block[6], block[COVERED]
    first, fresh, place, pixels, positions, steps, rows = lists(block)
    if what != BACKWARD_W and covered == 0:
        c[:] = 0
    for image in range(0, N, n):
        m, from_x, from_y = min(n, N - image), image * size_x, image * size_y
        for second in range(1 if len(y2 if what == BACKWARD_X else x2) == 0 else 2):
            xs, ys, fs = x2 if second else x, y2 if second else y, f2 if second else f
            if what != BACKWARD_X:
                xs = with_border(part(xs, from_x, from_x + m * size_x), m, block)
            for tap in range(taps):
                begin, end = first[tap], first[tap] + (first[tap + 1] - first[tap]) // n * m
                overwrite = second == 0 and covered * fresh[tap] == 1
                if what == FORWARD:
                    accumulate((tail(c, from_y), xs, tail(fs, place[tap] * K * O), positions,
                                pixels, begin, end, steps, rows, first[0], K, O, overwrite))
                elif what == BACKWARD_X:
                    accumulate((tail(c, from_x), tail(ys, from_y), tail(fs, place[tap] * K * C),
                                pixels, positions, begin, end, steps, rows, first[0], K, C,
                                overwrite))
                else:
                    dw, overwrite = tail(c, place[tap] * K * O), image == 0 and second == 0
                    if overwrite and begin == end:  # no position sees a pixel through this tap
                        dw[: K * O] = 0
                    accumulate((dw, xs, tail(ys, from_y), rows, steps, first[0], K, pixels,
                                positions, begin, end, O, overwrite))
# fmt: on
