"""Which pixels are in which window: integers that follow from the shapes.

They are made once for each shape, as one flat array of int64, a block:

n C          the images that the lists are for, channels
pixels       of an image
windows      of an image
taps         pixels of a window
outside      pixels of an image that are in no window
all          where the row of each pixel begins                            (n pixels)
window rows  where the row of each window begins                           (n windows)
tap rows     for each tap, where the row of that pixel of each window begins
                                                                    (taps, n windows)
outside rows where the rows of the pixels begin that are in no window      (n outside)
"""

from functools import lru_cache

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part

# About so many pixels are computed at a time, in whole images: their channels stay in
# the second-level cache.
PIXELS = 256
HEADER = 6


@lru_cache(maxsize=512)
def window_lists(N, C, H, W, Ho, Wo, window):
    """The block for windows that do not overlap; (1, 1): every pixel is a window."""
    (kH, kW), n = window, min(N, max(1, round(PIXELS / (H * W))))
    rows = np.arange(n * H * W).reshape(n, H, W)
    inside = rows[:, : Ho * kH, : Wo * kW]
    outside = np.setdiff1d(rows, inside)
    taps = inside.reshape(n, Ho, kH, Wo, kW).transpose(2, 4, 0, 1, 3)
    header = [n, C, H * W, Ho * Wo, kH * kW, len(outside) // n]
    lists = (rows, np.arange(n * Ho * Wo), taps, outside)
    return np.concatenate([header, *(C * rows.ravel() for rows in lists)]).astype(np.int64)


@inner()
def lists_of(block):
    """(all, windows, taps, outside) as views; the first m images are m / n of each."""
    n, pixels, windows, taps, outside = block[0], block[2], block[3], block[4], block[5]
    at = HEADER
    every, at = part(block, at, at + n * pixels), at + n * pixels
    of_windows, at = part(block, at, at + n * windows), at + n * windows
    of_taps, at = part(block, at, at + taps * n * windows), at + taps * n * windows
    return (
        every,
        of_windows,
        of_taps.reshape((taps, n * windows)),
        part(block, at, at + n * outside),
    )


@inner()
def image_groups(block, N):
    """For the N images of a task, n at a time: (how many, where their pixels begin,
    where their windows begin).
    """
    n, C, pixels, windows = block[0], block[1], block[2], block[3]
    for image in range(0, N, n):
        yield min(n, N - image), image * pixels * C, image * windows * C
