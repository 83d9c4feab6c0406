"""Which algorithm computes a product of a convolution: the direct one, or Winograd's.

The rule was measured (winograd.py). In multiply-adds for each pair of channels, the
direct product costs one for each pixel that a position sees through a tap. Winograd's
costs OVERHEAD for each of the 36 numbers of a tile, transforms included, and FILTERS
for the transform of the filters. It is taken where that is less, and where its rounding
errors are at most three times those of the direct product in float32: for sums over
CHANNELS or POSITIONS and more.

The choice depends on shapes alone, so results do not depend on the number of threads.
"""

from functools import lru_cache

from refmaml.kernels.conv2d.gather_indices import (
    BACKWARD_W,
    BACKWARD_X,
    FORWARD,
    HEADER,
    N_IMAGES,
    N_TAPS,
    WHAT,
    gather_indices,
)
from refmaml.kernels.conv2d.winograd_block import WINOGRAD, winograd_block
from refmaml.kernels.conv2d.winograd_matrices import OUTPUTS, TAPS, TILE

LANES = 16  # channels are a multiple of them: vectors are full in every precision
OVERHEAD, FILTERS = 1.4, 240
CHANNELS, POSITIONS = 32, 245  # the fewest numbers that are summed


@lru_cache(maxsize=512)
def product_block(what, N, C, H, W, O, Ho, Wo, kernel, stride, start, dilation=(1, 1)):
    """The block of one of a convolution's three products: gather_indices.py has the
    direct ones, winograd_block.py the others.
    """
    shape = (C, H, W, O, Ho, Wo)
    direct = gather_indices(what, N, *shape, kernel, stride, start, dilation)
    if not has_transforms(C, O, kernel, stride, dilation):
        return direct
    accurate = what != BACKWARD_W or N * Ho * Wo >= POSITIONS
    faster = transformed_cost(N, Ho, Wo) < N * pairs_seen(direct)
    return winograd_block(what, N, *shape, start) if accurate and faster else direct


def winograd_for_many(C, H, W, O, Ho, Wo, kernel, stride, start, dilation):
    """Whether a product of a convolution is Winograd's for a large number of images."""
    blocks = (
        product_block(what, 1 << 10, C, H, W, O, Ho, Wo, kernel, stride, start, dilation)
        for what in (FORWARD, BACKWARD_X, BACKWARD_W)
    )
    return any(map(by_winograd, blocks))


def has_transforms(C, O, kernel, stride, dilation):
    """Whether Winograd's filtering is there for a convolution."""
    filters = (tuple(kernel), tuple(stride), tuple(dilation))
    channels = min(C, O) >= CHANNELS and C % LANES == 0 and O % LANES == 0
    return channels and filters == ((TAPS, TAPS), (1, 1), (1, 1))


def transformed_cost(N, Ho, Wo):
    """The cost of Winograd's product, backward_x counted with the tiles of y."""
    tiles = -(-Ho // OUTPUTS) * -(-Wo // OUTPUTS)
    return OVERHEAD * TILE**2 * tiles * N + FILTERS


def pairs_seen(direct):
    """How many pairs (pixel, position) the direct product of an image multiplies."""
    return int(direct[HEADER + direct[N_TAPS]]) / int(direct[N_IMAGES])


def by_winograd(block):
    """Whether a block is one of Winograd's products."""
    return int(block[WHAT]) >= WINOGRAD
