"""Reuse of large blocks of memory.

The operating system fills fresh pages with zeros, which takes longer than most kernels
take to overwrite them. A training step needs the same sizes as the step before it.
"""

from collections import defaultdict
from math import prod

import numpy as np

CACHE_LINE = 64  # bytes; also the size of the widest vectors
SMALL = 1 << 17  # bytes below which NumPy's own allocator is as fast
# Bytes of unused blocks that are kept. A task of resnet12(32) with 75 queries takes 240
# MB in one kernel. With half of this, two threads would get fresh pages at every step,
# which took a fifth of it.
MAX_IDLE = 1 << 29


def aligned(size):
    """`size` bytes from a cache line on: a vector across two lines takes two loads."""
    block = np.empty(size + CACHE_LINE, np.uint8)
    start = -block.__array_interface__["data"][0] % CACHE_LINE
    return block[start : start + size]


class Lease:
    """Returns a block to its Memory when the last array in it is gone.

    NumPy keeps this object alive for as long as any view of the block.
    """

    def __init__(self, memory, block):
        self.memory, self.block = memory, block
        self.__array_interface__ = block.__array_interface__

    def __del__(self):
        self.memory.give_back(self.block)


class Memory:
    """Unused blocks of bytes, by their size."""

    def __init__(self):
        self.idle, self.idle_bytes = defaultdict(list), 0

    def empty(self, shape, dtype):
        """An uninitialised array, as np.empty."""
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        if size < SMALL:
            return aligned(size).view(dtype).reshape(shape)
        try:
            # pop is atomic in CPython: two threads cannot get the same block.
            block = self.idle[size].pop()
            self.idle_bytes -= size
        except IndexError:
            block = aligned(size)
        return np.asarray(Lease(self, block)).view(dtype).reshape(shape)

    def give_back(self, block):
        if self.idle_bytes + block.size <= MAX_IDLE:
            self.idle[block.size].append(block)
            self.idle_bytes += block.size
