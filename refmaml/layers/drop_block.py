"""DropBlock: dropout of square blocks of an image."""

from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

from refmaml.arguments import check_integer, set_fields
from refmaml.errors import expect
from refmaml.layers.dropout import Dropout
from refmaml.layers.extents import expect_images
from refmaml.layers.random_bits import SIGNIFICANT, key_of, uniform_words


@dataclass(frozen=True)
class DropBlock2d(Dropout):
    """y = m x / <m>, with m = 0 in blocks of b x b pixels and 1 elsewhere.

    Each of the (H - b + 1) (W - b + 1) blocks that fit into a channel is dropped with
    probability

        gamma = p H W / (b^2 (H - b + 1) (W - b + 1))

    for itself; blocks may overlap, so that a little less than the fraction p is 0. <m>
    is the mean of m over all numbers of one task's x. With b = 1 it is Dropout, scaled
    by the fraction that is kept and not by its expectation. If all numbers are dropped,
    y = 0.

    The mask is a pure function of (seed, b, shape of one task's x): see Dropout, which
    says what this means. The layer is linear, and all passes multiply by m / <m>.
    p            in [0, 1]
    block_size   b, an integer >= 1
    seed         an integer in [0, 2^64)
    Raises ArgumentError for other values, and for images smaller than a block.
    Source: Ghiasi, Lin, Le 2018, Algorithm 1 and eq. 1. torchvision's DropBlock2d is
    the same for odd b, up to the 1e-6 that it adds to the number of kept entries.
    """

    p: float = 0.1
    block_size: int = field(default=7, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, block_size=check_integer("block_size", self.block_size))

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]"""
        return [
            (cls(0.3, block_size=2), (3, 4, 2)),
            (cls(0.5, seed=1, block_size=3), (2, 3, 5)),
            (cls(0.4, block_size=1), (3, 4, 2)),
            (cls(0, block_size=2), (3, 4, 2)),
        ]

    def output_shape(self, shape: tuple) -> tuple:
        expect_images(shape, None, "DropBlock2d")
        expect(
            self.block_size <= min(shape[1:]),
            "input of DropBlock2d",
            f"at least {self.block_size} rows and columns",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def mask(self, xp: Any, shape: tuple, dtype: Any) -> Any:
        """m / <m> for one task's x of `shape` (N, C, H, W)."""
        (N, C, H, W), b = shape, self.block_size
        corners = N, C, H - b + 1, W - b + 1
        gamma = self.p * H * W / (b * b * prod(corners[2:]))  # at most p
        words = uniform_words(xp, key_of(self.seed, b, *shape), prod(corners))
        chosen = (words < ceil(gamma * 2**SIGNIFICANT)).reshape(corners)
        rows = xp.zeros((N, C, H, corners[3]), bool)
        dropped = xp.zeros(shape, bool)
        for i in range(b):
            rows[:, :, i : i + corners[2]] |= chosen
        for j in range(b):
            dropped[:, :, :, j : j + corners[3]] |= rows
        # A count is exact, so the bits are those of every kernel set.
        factor = prod(shape) / xp.maximum((~dropped).sum(), 1)
        return (~dropped).astype(dtype) * factor.astype(dtype)
