"""Between the host's memory and a GPU's. A copy has a price however small it is, and so has waiting for one: arrays travel together."""

from itertools import accumulate
from math import prod

import numpy as np

ALIGN = (
    256  # bytes: where an array may begin, so that any kernel can load from it in the widest words
)


class Parcel:
    """The layout of several arrays behind one another in one block of bytes."""

    def __init__(self, arrays):
        self.specs = [(a.shape, a.dtype) for a in arrays]
        sizes = [-(-prod(shape) * dtype.itemsize // ALIGN) * ALIGN for shape, dtype in self.specs]
        self.starts, self.size = [0, *accumulate(sizes)][:-1], max(sum(sizes), 1)

    def views(self, block):
        """The arrays in a block (size,) of uint8, NumPy's or CuPy's: views of its memory."""
        return [
            block[start : start + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
            for start, (shape, dtype) in zip(self.starts, self.specs, strict=True)
        ]

    def load(self, block, arrays):
        """NumPy arrays of these shapes into a block on the host."""
        for place, a in zip(self.views(block), arrays, strict=True):
            place[...] = a


def send(xp, arrays):
    """NumPy arrays as arrays of xp, in one copy."""
    if len(arrays) == 1:
        return [xp.asarray(arrays[0])]
    parcel = Parcel(arrays)
    block = np.empty(parcel.size, np.uint8)
    parcel.load(block, arrays)
    return parcel.views(xp.asarray(block))


class Numbers:
    """A few small arrays of the GPU on their way back, in one copy, with one wait: real numbers, bools, integers below 2^53, as float64."""

    def __init__(self, xp, arrays):
        self.specs = [(a.shape, a.dtype) for a in arrays]
        ends = [0, *accumulate(prod(shape) for shape, _ in self.specs)]
        self.places = [slice(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
        self.block = xp.empty(ends[-1], np.float64)
        for place, a in zip(self.places, arrays, strict=True):
            self.block[place] = a.reshape(-1)

    def fetch(self):
        """Those arrays as NumPy's, in the dtypes they had."""
        host = self.block.get()
        return [
            host[place].reshape(shape).astype(dtype)
            for place, (shape, dtype) in zip(self.places, self.specs, strict=True)
        ]
