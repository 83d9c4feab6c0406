"""Which pixel each output position sees through each tap of a convolution's filter.

The integers follow from the shapes of the convolution and are made once for each. They
are one flat array of int64, a block, so that a compiled kernel takes the lists of any
number of convolutions as one array:

    n                 the images that the lists are for
    C H W O Ho Wo     the extents; a position is one of the Ho Wo outputs of an image
    taps              how many lists of pairs (pixel, position) follow: one for each tap
                      of the filter; a single one if there are few channels
    Hp Wp top left    few channels: patches are taken from a copy of each image with a
                      border. Its height and width, and where the image begins in it.
                      Otherwise 0 0 0 0
    covered           1 if the taps marked fresh write to every element of the result; 0
                      if the result must be set to 0 first
    what              FORWARD, BACKWARD_X or BACKWARD_W
    K                 how many numbers are summed in one go: the channels, or a whole
                      patch if there are few channels

    first   (taps + 1)    the pairs of tap k are first[k] .. first[k+1]
    fresh   (taps)        1 if no tap before this one writes to any of its targets
    place   (taps)        which tap of the filter it is
    pixels, positions     where each seen pixel begins, and the position that sees it
    steps   (K)           where the K numbers are, relative to that
    rows    (K)           where the rows of the other factor begin
"""

from functools import lru_cache

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part

FORWARD, BACKWARD_X, BACKWARD_W = 0, 1, 2
FEW = 8  # with fewer channels all taps are summed in one go, from a copy with a border
POSITIONS = 256  # a thread computes about so many positions at a time, in whole images
# Where the entries of a block are.
N_IMAGES, N_TAPS, COVERED, WHAT, SUMMED, HEADER = 0, 7, 12, 13, 14, 15


@lru_cache(maxsize=512)
def gather_indices(what, N, C, H, W, O, Ho, Wo, kernel, stride, start, dilation=(1, 1)):
    """The block of one of a convolution's three products.

    start  (top, left) padding
    """
    n = min(N, max(1, round(POSITIONS / (Ho * Wo))))
    few = C < FEW and what != BACKWARD_X
    pixels, positions = pairs(n, C, H, W, O, Ho, Wo, kernel, stride, start, dilation)
    bordered, steps = (0, 0, 0, 0), np.arange(O if what == BACKWARD_X else C)
    if few:  # the patch of a position begins at its first tap
        (kH, kW), (sH, sW), (dH, dW) = kernel, stride, dilation
        Hp, Wp = sH * (Ho - 1) + dH * (kH - 1) + 1, sW * (Wo - 1) + dW * (kW - 1) + 1
        bordered = (Hp, Wp, *start)
        taps = [(dH * p, dW * q) for p in range(kH) for q in range(kW)]
        steps = np.concatenate([(p * Wp + q) * C + steps for p, q in taps])
        pixels, positions = pairs(n, C, Hp, Wp, O, Ho, Wo, (1, 1), stride, (0, 0), (1, 1))
    targets = pixels if what == BACKWARD_X else positions
    size = n * H * W if what == BACKWARD_X else n * Ho * Wo
    order, fresh, covered = disjoint_first(targets, size)
    first = np.cumsum([0, *(len(pixels[tap]) for tap in order)])
    header = [n, C, H, W, O, Ho, Wo, len(order), *bordered, covered, what, len(steps)]
    rows = np.arange(len(steps)) * (C if what == BACKWARD_X else O)
    gathered = [pixels[tap] for tap in order] + [positions[tap] for tap in order]
    return np.concatenate([header, first, fresh, order, *gathered, steps, rows]).astype(np.int64)


def pairs(n, C, H, W, O, Ho, Wo, kernel, stride, start, dilation):
    """(pixels, positions), a list for each tap (p, q).

    pixels: where the pixels (n, H, W) begin that some position sees through the tap;
    positions: where those positions (n, Ho, Wo) begin.
    """
    m, i, j = np.indices((n, Ho, Wo)).reshape(3, -1)
    pixels, positions = [], []
    for p in range(kernel[0]):
        for q in range(kernel[1]):
            h = stride[0] * i + dilation[0] * p - start[0]
            w = stride[1] * j + dilation[1] * q - start[1]
            seen = (h >= 0) & (h < H) & (w >= 0) & (w < W)
            pixels.append((((m * H + h) * W + w) * C)[seen])
            positions.append((((m * Ho + i) * Wo + j) * O)[seen])
    return pixels, positions


def disjoint_first(targets, size):
    """(order, fresh, covered): the taps in an order that begins with disjoint ones.

    fresh: whether a tap is one of those, which have no target in common; covered:
    whether together they write to all `size` targets.
    """
    order, fresh, reached = [], [], set()
    for tap in sorted(range(len(targets)), key=lambda tap: -len(targets[tap])):
        own = set(targets[tap].tolist())
        if own and not own & reached:
            order.append(tap)
            reached |= own
    fresh = [1] * len(order) + [0] * (len(targets) - len(order))
    order += [tap for tap in range(len(targets)) if tap not in order]
    return order, fresh, int(len(reached) == size)


@inner()
def lists(block):
    """(first, fresh, place, pixels, positions, steps, rows) of a block, as views."""
    taps, K = block[N_TAPS], block[SUMMED]
    at = HEADER
    first, at = part(block, at, at + taps + 1), at + taps + 1
    fresh, at = part(block, at, at + taps), at + taps
    place, at = part(block, at, at + taps), at + taps
    pixels, at = part(block, at, at + first[taps]), at + first[taps]
    positions, at = part(block, at, at + first[taps]), at + first[taps]
    steps, rows = part(block, at, at + K), part(block, at + K, at + 2 * K)
    return first, fresh, place, pixels, positions, steps, rows
