"""Memory that is used again. Fresh pages come from the operating system filled with zeros, which takes longer than most kernels take to
overwrite them; and a training step asks for the same sizes as the one before."""

from collections import defaultdict
from math import prod

import numpy as np

LINE = 64  # bytes of a cache line, and of the widest vectors
SMALL = 1 << 17  # bytes below which NumPy's own memory is as quick
KEPT = 1 << 28  # bytes that may lie idle


def aligned(size):
    """`size` bytes that begin with a cache line: a vector that lies across two takes two loads."""
    block = np.empty(size + LINE, np.uint8)
    start = -block.__array_interface__["data"][0] % LINE
    return block[start : start + size]


class Lease:
    """A block that goes back when the last array in it is gone: NumPy keeps this object alive for as long as any view."""

    def __init__(self, memory, block):
        self.memory, self.block = memory, block
        self.__array_interface__ = block.__array_interface__

    def __del__(self):
        self.memory.give_back(self.block)


class Memory:
    """Blocks of bytes by their size."""

    def __init__(self):
        self.idle, self.idle_bytes = defaultdict(list), 0

    def empty(self, shape, dtype):
        """An uninitialised array, as np.empty."""
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        if size < SMALL:
            return aligned(size).view(dtype).reshape(shape)
        try:
            block = self.idle[
                size
            ].pop()  # one step in CPython: two threads cannot get the same block
            self.idle_bytes -= size
        except IndexError:
            block = aligned(size)
        return np.asarray(Lease(self, block)).view(dtype).reshape(shape)

    def give_back(self, block):
        if self.idle_bytes + block.size <= KEPT:
            self.idle[block.size].append(block)
            self.idle_bytes += block.size
