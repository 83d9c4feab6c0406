"""The three products of a convolution with groups of channels, for one task.

Group g has the input channels g I .. g I + I, the output channels g J .. g J + J, and
filters of its own, (J, I, taps). In product order these are rows (tap, i) of J numbers,
one group after another. A group is a product as in conv2d/task_product.py; only the
places of its channels within the rows of all channels are others, so nothing is copied.
All arrays are flat.
"""

import numpy as np

from refmaml.kernels.conv2d.gather_indices import (
    BACKWARD_W,
    BACKWARD_X,
    COVERED,
    FORWARD,
    N_IMAGES,
    N_TAPS,
    POSITIONS,
    WHAT,
    disjoint_first,
    lists,
    pairs,
)
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.gemm_microkernel import accumulate

GROUPS = 8  # where a block has the number of groups, in place of a border


def grouped_indices(what, G, N, C, H, W, O, Ho, Wo, kernel, stride, start, dilation):
    """A block as gather_indices.py describes it, for the channels of one group.

    C, O, pixels and positions are those of all channels; steps and rows those of the
    first group. There is never a border.
    """
    n, I, J = min(N, max(1, round(POSITIONS / (Ho * Wo)))), C // G, O // G
    pixels, positions = pairs(n, C, H, W, O, Ho, Wo, kernel, stride, start, dilation)
    targets, size = (pixels, n * H * W) if what == BACKWARD_X else (positions, n * Ho * Wo)
    order, fresh, covered = disjoint_first(targets, size)
    steps = np.arange(J if what == BACKWARD_X else I)
    header = [n, C, H, W, O, Ho, Wo, len(order), G, 0, 0, 0, covered, what, len(steps)]
    first = np.cumsum([0, *(len(pixels[tap]) for tap in order)])
    gathered = [pixels[tap] for tap in order] + [positions[tap] for tap in order]
    rows = steps * (I if what == BACKWARD_X else J)
    return np.concatenate([header, first, fresh, order, *gathered, steps, rows]).astype(np.int64)


# fmt: off
@external("F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], int64[::1], int64",
          on_demand=True)
def product(c, x, x2, y, y2, f, f2, block, N):
    """As `product` in conv2d/task_product.py, group by group."""
    n, C, O, taps, G = block[N_IMAGES], block[1], block[4], block[N_TAPS], block[GROUPS]
    I, J, what, covered = C // G, O // G, block[WHAT], block[COVERED]
    size_x, size_y = C * block[2] * block[3], O * block[5] * block[6]
    first, fresh, place, pixels, positions, steps, rows = lists(block)
    if what != BACKWARD_W and covered == 0:
        c[:] = 0
    for image in range(0, N, n):
        m = min(n, N - image)
        for part in range(1 if len(y2 if what == BACKWARD_X else x2) == 0 else 2):
            xs, ys, fs = x2 if part else x, y2 if part else y, f2 if part else f
            for g in range(G):
                at_x, at_y = image * size_x + g * I, image * size_y + g * J
                for tap in range(taps):
                    begin, end = first[tap], first[tap] + (first[tap + 1] - first[tap]) // n * m
                    overwrite = part == 0 and covered * fresh[tap] == 1
                    at_f = (g * taps + place[tap]) * I * J
                    if what == FORWARD:
                        accumulate((c[at_y:], xs[at_x:], fs[at_f:], positions, pixels, begin, end,
                                    steps, rows, first[0], I, J, overwrite))
                    elif what == BACKWARD_X:
                        accumulate((c[at_x:], ys[at_y:], fs[at_f:], pixels, positions, begin, end,
                                    steps, rows, first[0], J, I, overwrite))
                    else:
                        overwrite = image == 0 and part == 0
                        if overwrite and begin == end:  # no position sees a pixel
                            c[at_f : at_f + I * J] = 0
                        accumulate((c[at_f:], xs[at_x:], ys[at_y:], rows, steps, first[0], I,
                                    pixels, positions, begin, end, J, overwrite))
# fmt: on
