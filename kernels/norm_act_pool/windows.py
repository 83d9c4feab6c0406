"""Which pixels lie in which window: integers that follow from the shapes, made once for each, as one flat block of int64.

n C          images that the lists are for, channels
pixels       of an image, windows of an image, taps (pixels of a window), left: pixels of an image that lie in no window
all          where the row of each pixel begins                                         (n pixels)
windows      where the row of each window begins                                        (n windows)
then, for each tap, where the row of that pixel of each window begins                   (taps, n windows)
and where the rows of the pixels begin that lie in no window                            (n left)
"""

from functools import lru_cache

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner

ROWS = 256  # pixels at a time, give or take an image: their channels stay in the second-level cache
HEADER = 6


@lru_cache(maxsize=512)
def window_lists(N, C, H, W, Ho, Wo, window):
    """The block for windows that lie side by side; (1, 1): every pixel is its own."""
    (kH, kW), n = window, min(N, max(1, round(ROWS / (H * W))))
    rows = np.arange(n * H * W).reshape(n, H, W)
    inside = rows[:, : Ho * kH, : Wo * kW]
    left = np.setdiff1d(rows, inside)
    taps = inside.reshape(n, Ho, kH, Wo, kW).transpose(2, 4, 0, 1, 3)
    header = [n, C, H * W, Ho * Wo, kH * kW, len(left) // n]
    return np.concatenate(
        [header, *(C * rows.ravel() for rows in (rows, np.arange(n * Ho * Wo), taps, left))]
    ).astype(np.int64)


@inner()
def lists_of(block):
    """(all, windows, taps, left) as views; the first m images are the first m / n of each."""
    n, pixels, windows, taps, left = block[0], block[2], block[3], block[4], block[5]
    at = HEADER
    every, at = block[at : at + n * pixels], at + n * pixels
    of_windows, at = block[at : at + n * windows], at + n * windows
    of_taps, at = block[at : at + taps * n * windows], at + taps * n * windows
    return every, of_windows, of_taps.reshape((taps, n * windows)), block[at : at + n * left]
