"""Transfers between the memory of the host and that of a GPU.

Every copy has a fixed cost, and so has every wait. So arrays are sent together.
"""

from itertools import accumulate
from math import prod

import numpy as np

ALIGN = 256  # bytes at which each array begins, so that kernels can use the widest loads


class Parcel:
    """The layout of several arrays, one after the other, in one block of bytes."""

    def __init__(self, arrays):
        self.specs = [(a.shape, a.dtype) for a in arrays]
        sizes = [-(-prod(shape) * dtype.itemsize // ALIGN) * ALIGN for shape, dtype in self.specs]
        self.starts, self.size = [0, *accumulate(sizes)][:-1], max(sum(sizes), 1)

    def views(self, block):
        """The arrays as views of a block (size,) of uint8, NumPy's or CuPy's."""
        return [
            block[start : start + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for start, (shape, dtype) in zip(self.starts, self.specs, strict=True)
        ]

    def load(self, block, arrays):
        """Copy NumPy arrays of these shapes into a block on the host."""
        for view, a in zip(self.views(block), arrays, strict=True):
            view[...] = a


def send(xp, arrays):
    """NumPy arrays as arrays of xp, in one copy."""
    if len(arrays) == 1:
        return [xp.asarray(arrays[0])]
    parcel = Parcel(arrays)
    block = np.empty(parcel.size, np.uint8)
    parcel.load(block, arrays)
    return parcel.views(xp.asarray(block))


class Numbers:
    """Small arrays of the GPU that are copied to the host together, with one wait.

    They hold real numbers, bools, or integers below 2^53, and travel as float64.
    """

    def __init__(self, xp, arrays):
        self.specs = [(a.shape, a.dtype) for a in arrays]
        ends = [0, *accumulate(prod(shape) for shape, _ in self.specs)]
        self.slices = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
        self.block = xp.empty(ends[-1], np.float64)
        for part, a in zip(self.slices, arrays, strict=True):
            self.block[part] = a.reshape(-1)

    def fetch(self):
        """The arrays as NumPy's, in their own dtypes."""
        host = self.block.get()
        return [
            host[part].reshape(shape).astype(dtype)
            for part, (shape, dtype) in zip(self.slices, self.specs, strict=True)
        ]
