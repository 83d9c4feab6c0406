"""Where the tiles of a convolution by Winograd's filtering are: an array of integers.

An image of outputs is cut into tiles of 4 x 4; the last ones may end outside. A tile
needs 6 x 6 inputs, some of them in the padding. Taps of the filter and outputs have
stride 1, and so has backward_x: dx is the convolution of dy with the flipped filters,
its channels exchanged, with a padding of 2 minus that of the forward pass.

    n I J     images at a time; channels in and out (of backward_x those of dy and dx)
    size_in, size_out   numbers of one image in, and out
    tiles     of one image
    in_step, out_step   from one of the 36 numbers of all tiles to the next, for inputs
              and outputs; a little more than their size, or they would be in the same
              sets of the first-level cache
    tap, tap_step       the first tap of the filters, and how far the next one is
    what      WINOGRAD + FORWARD, BACKWARD_X or BACKWARD_W, at the index that
              gather_indices.py has for it

    places_in  (tiles, 36)   where the inputs of a tile begin in an image, or OUTSIDE
    places_out (tiles, 16)   where its outputs begin, or OUTSIDE
    tiles_in, tiles_out (n tiles)  where the rows of a tile begin
    channels (I), rows (I)   0, 1, 2, ...; where the rows of filters begin
"""

from functools import lru_cache

import numpy as np

from refmaml.kernels.conv2d.gather_indices import BACKWARD_X, WHAT
from refmaml.kernels.conv2d.winograd_matrices import OUTPUTS, TAPS, TILE
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.two_sided import OUTSIDE
from refmaml.kernels.numba_runtime.unowned_views import part

WINOGRAD = 8  # added to `what`
TILES = 48  # a thread has about so many tiles at a time, in whole images
LINE = 16  # numbers by which steps exceed a power of two
(N_IMAGES, I, J, SIZE_IN, SIZE_OUT, N_TILES, IN_STEP, OUT_STEP, TAP, TAP_STEP) = range(10)
HEADER = WHAT + 1


@lru_cache(maxsize=512)
def winograd_block(what, N, C, H, W, O, Ho, Wo, start):
    """The block of one of a convolution's products; start: (top, left) padding."""
    extents_in, extents_out = (H, W), (Ho, Wo)
    channels_in, channels_out, first_tap, tap_step = C, O, 0, C * O
    if what == BACKWARD_X:
        extents_in, extents_out = extents_out, extents_in
        channels_in, channels_out, first_tap, tap_step = O, C, (TAPS**2 - 1) * C * O, -C * O
        start = tuple(TAPS - 1 - before for before in start)
    places_in = places(extents_in, extents_out, TILE, start, channels_in)
    places_out = places(extents_out, extents_out, OUTPUTS, (0, 0), channels_out)
    tiles = len(places_in)
    n = min(N, max(1, round(TILES / tiles)))
    steps = [n * tiles * channels + LINE for channels in (channels_in, channels_out)]
    header = np.zeros(HEADER, np.int64)
    header[: TAP_STEP + 1] = (
        *(n, channels_in, channels_out, channels_in * np.prod(extents_in)),
        *(channels_out * np.prod(extents_out), tiles, *steps, first_tap, tap_step),
    )
    header[WHAT] = WINOGRAD + what
    each, channel = np.arange(n * tiles), np.arange(channels_in)
    rows = [each * channels_in, each * channels_out, channel, channel * channels_out]
    return np.concatenate([header, places_in.ravel(), places_out.ravel(), *rows])


def places(extents, extents_out, side, start, channels):
    """(tiles, side^2): where the numbers of each tile begin in an image, or OUTSIDE."""
    across = [np.arange(-(-extent // OUTPUTS)) * OUTPUTS for extent in extents_out]
    h, w = (
        (tile[:, None] + np.arange(side) - before)
        for tile, before in zip(across, start, strict=True)
    )
    h, w = h[:, None, :, None], w[None, :, None, :]
    inside = (h >= 0) & (h < extents[0]) & (w >= 0) & (w < extents[1])
    return np.where(inside, (h * extents[1] + w) * channels, OUTSIDE).reshape(-1, side * side)


@inner()
def lists(block):
    """(places_in, places_out, tiles_in, tiles_out, channels, rows) of a block."""
    n, channels, tiles, at = block[N_IMAGES], block[I], block[N_TILES], HEADER
    places_in, at = part(block, at, at + 36 * tiles), at + 36 * tiles
    places_out, at = part(block, at, at + 16 * tiles), at + 16 * tiles
    tiles_in, at = part(block, at, at + n * tiles), at + n * tiles
    tiles_out, at = part(block, at, at + n * tiles), at + n * tiles
    return (
        places_in,
        places_out,
        tiles_in,
        tiles_out,
        part(block, at, at + channels),
        part(block, at + channels, at + 2 * channels),
    )
