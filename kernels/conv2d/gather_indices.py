"""Which pixel each position sees through each tap: integers that follow from the shapes of a convolution, made once for each.

They travel as one flat block of int64, so that a compiled kernel takes the lists of any number of convolutions as one array:

    n                 images that the lists are for
    C H W O Ho Wo     the extents; a position is one of the Ho Wo outputs of an image
    taps              how many lists of pairs (pixel, position) follow: one for each tap of the filter, or one in all where channels are few
    Hp Wp top left    height and width of the copy of an image with its border that patches are then taken from, and where the image
                      begins in it; 0 0 0 0 where there is no copy
    covered           1 where the taps marked fresh reach everything that is written, 0 where it must be set to 0 first
    what              FORWARD, BACKWARD_X or BACKWARD_W
    K                 numbers that are summed up in one go: the channels, or all of a patch where channels are few

    first   (taps + 1)    tap k's pairs are first[k] .. first[k+1]
    fresh   (taps)        1 where nothing that this tap's pairs write to was written by a tap before it
    place   (taps)        which tap of the filter it is
    pixels, positions     where each pixel seen begins, and where the position that sees it
    steps   (K)           where the numbers that are summed up lie, from there on
    rows    (K)           where the rows of the other factor begin
"""

from functools import lru_cache

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner

FORWARD, BACKWARD_X, BACKWARD_W = 0, 1, 2
FEW = 8  # channels below which all taps are summed in one go, from a copy of x with its border of zeros
ROWS = 256  # positions that a thread takes at a time, give or take an image
N_IMAGES, N_TAPS, COVERED, WHAT, SUMMED, HEADER = (
    0,
    7,
    12,
    13,
    14,
    15,
)  # where in a block those begin


@lru_cache(maxsize=512)
def sights(what, N, C, H, W, O, Ho, Wo, kernel, stride, start):
    """The block for one of the three products of a convolution; start: (top, left) of the padding."""
    n, few = min(N, max(1, round(ROWS / (Ho * Wo)))), C < FEW and what != BACKWARD_X
    pixels, positions = pairs(n, C, H, W, O, Ho, Wo, kernel, stride, start)
    bordered, steps = (0, 0, 0, 0), np.arange(O if what == BACKWARD_X else C)
    if few:  # the patch of a position begins at its first tap
        (kH, kW), (sH, sW) = kernel, stride
        Hp, Wp = sH * (Ho - 1) + kH, sW * (Wo - 1) + kW
        bordered = (Hp, Wp, *start)
        steps = np.concatenate([(p * Wp + q) * C + steps for p in range(kH) for q in range(kW)])
        pixels, positions = pairs(n, C, Hp, Wp, O, Ho, Wo, (1, 1), stride, (0, 0))
    targets = pixels if what == BACKWARD_X else positions
    size = n * H * W if what == BACKWARD_X else n * Ho * Wo
    order, fresh, covered = disjoint_first(targets, size)
    first = np.cumsum([0, *(len(pixels[tap]) for tap in order)])
    header = [n, C, H, W, O, Ho, Wo, len(order), *bordered, covered, what, len(steps)]
    rows = np.arange(len(steps)) * (C if what == BACKWARD_X else O)
    return np.concatenate(
        [
            header,
            first,
            fresh,
            order,
            *(pixels[tap] for tap in order),
            *(positions[tap] for tap in order),
            steps,
            rows,
        ]
    ).astype(np.int64)


def pairs(n, C, H, W, O, Ho, Wo, kernel, stride, start):
    """For every tap (p, q): where the pixels (n, H, W) begin that positions (n, Ho, Wo) see through it, and where those positions."""
    m, i, j = np.indices((n, Ho, Wo)).reshape(3, -1)
    pixels, positions = [], []
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            h, w = stride[0] * i + p - start[0], stride[1] * j + q - start[1]
            seen = (h >= 0) & (h < H) & (w >= 0) & (w < W)
            pixels.append((((m * H + h) * W + w) * C)[seen])
            positions.append((((m * Ho + i) * Wo + j) * O)[seen])
    return pixels, positions


def disjoint_first(targets, size):
    """An order of the taps that begins with those that have no target in common; which they are; whether they reach all `size` targets."""
    order, fresh, reached = [], [], set()
    for tap in sorted(range(len(targets)), key=lambda tap: -len(targets[tap])):
        mine = set(targets[tap].tolist())
        if mine and not mine & reached:
            order.append(tap)
            reached |= mine
    fresh = [1] * len(order) + [0] * (len(targets) - len(order))
    return (
        order + [tap for tap in range(len(targets)) if tap not in order],
        fresh,
        int(len(reached) == size),
    )


@inner()
def lists(block):
    """(first, fresh, place, pixels, positions, steps, rows) of a block, as views."""
    taps, K = block[N_TAPS], block[SUMMED]
    at = HEADER
    first, at = block[at : at + taps + 1], at + taps + 1
    fresh, at = block[at : at + taps], at + taps
    place, at = block[at : at + taps], at + taps
    pixels, at = block[at : at + first[taps]], at + first[taps]
    positions, at = block[at : at + first[taps]], at + first[taps]
    return first, fresh, place, pixels, positions, block[at : at + K], block[at + K : at + 2 * K]
