"""Memory and streams of the stand-in for CuPy.

Pools hand out returned blocks again. While a stream captures, work is recorded and not
run.
"""

from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory's."""


class Block:
    """Bytes that return to their pool when the last array in them is deleted."""

    def __init__(self, pool, size):
        self.pool, self.size = pool, size
        self.bytes = pool.idle[size].pop() if pool.idle[size] else pool.fresh(size)
        pool.gpu.held += size

    def __del__(self):
        self.pool.gpu.held -= self.size
        self.pool.idle[self.size].append(self.bytes)


class MemoryPool:
    """As cupy.cuda.MemoryPool: freed blocks are handed out again.

    Blocks that are idle when the pool is deleted are counted as "leaked", in bytes.
    """

    def __init__(self, gpu):
        self.gpu, self.idle, self.total = gpu, defaultdict(list), 0

    def fresh(self, size):
        self.gpu.counts["malloc while capturing" if self.gpu.capturing else "malloc"] += 1
        self.total += size
        return np.empty(size, np.uint8)

    def total_bytes(self):
        return self.total

    def __del__(self):
        self.gpu.counts["leaked"] += sum(
            len(block) for blocks in self.idle.values() for block in blocks
        )

    def malloc(self, size):
        if self.gpu.limit is not None and self.gpu.held + size > self.gpu.limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes "
                f"(allocated so far: {self.gpu.held:,} bytes)."
            )
        return Block(self, size)

    def free_all_blocks(self):
        self.gpu.counts["free_all_blocks"] += 1
        self.total -= sum(len(block) for blocks in self.idle.values() for block in blocks)
        self.idle.clear()


class Gpu:
    """The state of the GPU: the pool in use, the current capture, the counts.

    counts  "to the GPU", "to the host": copies; "wait": reads of one number; "launch";
            "malloc"
    limit   bytes that may be allocated at a time; None: no limit
    """

    def __init__(self):
        self.counts, self.limit, self.held, self.recording = Counter(), None, 0, None
        self.default = self.pool = MemoryPool(self)

    @property
    def capturing(self):
        return self.recording is not None

    def count(self, what):
        """Count a copy or a wait, which is an error while capturing."""
        if self.capturing:
            raise RuntimeError(
                f"the current stream is capturing, so a synchronous call is disallowed ({what})"
            )
        self.counts[what] += 1

    def cublas(self):
        """A call of cuBLAS, which CuPy refuses while capturing."""
        if self.capturing:
            raise NotImplementedError(
                "calling cuBLAS API during stream capture is currently unsupported"
            )

    def run(self, work):
        """Run work, or record it while capturing; then nothing is computed."""
        self.counts["launch"] += 1
        if self.capturing:
            self.recording.append(work)
        else:
            work()

    def empty(self, shape, dtype):
        """(array, block), filled with NaN, or -1 for integers."""
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        block = self.pool.malloc(size)
        array = block.bytes[:size].view(dtype).reshape(shape)
        array[...] = np.nan if dtype.kind in "fc" else np.array(-1).astype(dtype)
        return array, block


class CUDARuntimeError(RuntimeError):
    """As cupy.cuda.runtime's."""


class Stream:
    """As cupy.cuda.Stream: what is launched after begin_capture is recorded."""

    def __init__(self, gpu, non_blocking=False):
        self.gpu, self.non_blocking = gpu, non_blocking

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def synchronize(self):
        self.gpu.count("wait")

    def record(self):
        """An event after everything launched on this stream so far."""
        return SimpleNamespace(stream=self)

    def wait_event(self, event):
        """Order later launches after the event; the host does not wait."""
        self.gpu.counts["order"] += 1

    def begin_capture(self):
        if not self.non_blocking:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureImplicit: operation would make the legacy stream "
                "depend on a capturing one"
            )
        self.gpu.recording = []

    def end_capture(self):
        works, self.gpu.recording = self.gpu.recording, None
        return SimpleNamespace(launch=lambda stream=None: self.replay(works), works=works)

    def replay(self, works):
        self.gpu.counts["graph"] += 1
        for work in works:
            work()
