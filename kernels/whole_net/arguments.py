"""Arrays as the compiled function takes them, and its memory, in one block."""

from functools import cache
from itertools import accumulate
from math import prod

import numpy as np

from refmaml.kernels.whole_net.memory_plan import whole_lines


@cache
def placeholders(dtype):
    """Arrays for arguments that are not used: outputs or targets, losses, flags,
    gradients, labels."""
    return (
        np.empty((1, 1, 1), dtype),
        np.empty(1, dtype),
        np.empty(1, bool),
        np.empty((1, 1), dtype),
        np.empty((1, 1), np.int64),
    )


def divided(empty, dtype, *shapes):
    """Arrays of these shapes in one block of memory, each at a cache line."""
    size, parts = places_in_block(shapes)
    block = empty((size,), dtype)
    return [block[part].reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


@cache
def places_in_block(shapes):
    """(numbers in a block, a slice of it for each shape)."""
    starts = [0, *accumulate(whole_lines(prod(shape)) for shape in shapes)]
    parts = [slice(a, a + prod(shape)) for a, shape in zip(starts, shapes, strict=False)]
    return starts[-1], parts


def dense(a, dtype):
    """`a` contiguous and writable. Numba gives read-only arrays (JAX's)
    another type.
    """
    fits = type(a) is np.ndarray and a.dtype == dtype and a.flags.carray
    return a if fits else np.require(a, dtype, "CW")


def rows_of_pixels(x, dtype):
    """(T, N, C, H, W), or (T, N, C), as (T, N H W C)."""
    x = x.transpose(0, 1, 3, 4, 2) if x.ndim == 5 else x
    return dense(x, dtype).reshape(len(x), -1)
