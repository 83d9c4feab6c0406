"""Work on the GPU that is captured once and replayed: a CUDA graph.

A hundred launches from Python, one by one, take longer than the arithmetic of a small
net; one launch of a graph does not.
"""

from contextlib import suppress

import numpy as np

from refmaml.kernels.cuda_runtime.transfer import Numbers, Parcel

MAX_CAPTURES = 4  # until one needs no new memory


class Graph:
    """function(*arrays) -> (kept, small), captured for arrays like `inputs`.

    Shapes and dtypes are those of `inputs`, contents may differ.

    function  launches work and never waits: it reads no number of the GPU, and copies
              nothing to the GPU or back
    kept      the arrays that stay on the GPU
    small     small arrays that are copied to the host

    The kernels of a graph know addresses. So inputs are copied to the addresses of the
    capture, and all memory of the capture comes from a pool that serves this graph
    alone. The function runs once before it is captured, so that its kernels are
    compiled and the pool holds the memory that it needs: see `capture`.
    """

    def __init__(self, xp, function, inputs):
        self.xp, cuda = xp, xp.cuda
        self.stream, self.pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self.parcel = Parcel(inputs)
        self.staging = np.frombuffer(
            cuda.alloc_pinned_memory(self.parcel.size), np.uint8, self.parcel.size
        )
        cuda.get_current_stream().synchronize()  # which computes what the function reads
        with self.stream, cuda.using_allocator(self.pool.malloc):
            self.block = xp.empty(self.parcel.size, np.uint8)
            self.inputs = self.parcel.views(self.block)
            self.copy_inputs(inputs)
            self.work(function)
            self.stream.synchronize()
            self.capture(function)

    def capture(self, function):
        """Capture the function while the pool does not grow.

        A pool that runs out of memory releases its free blocks and tries again, but a
        captured kernel will write to blocks that are free during the capture. So where
        the pool grew, the function is captured again: now the pool holds that memory,
        too. Raises CuPy's OutOfMemoryError where it keeps growing.
        """
        for _ in range(MAX_CAPTURES):
            self.graph, size = None, self.pool.total_bytes()
            self.kept = self.numbers = None
            self.stream.begin_capture()
            try:
                self.kept, self.numbers = self.work(function)
            except BaseException:
                with suppress(Exception):  # the first exception is the one to report
                    self.stream.end_capture()
                raise
            self.graph = self.stream.end_capture()
            if self.pool.total_bytes() == size:
                return
        total = self.pool.total_bytes()
        raise self.xp.cuda.memory.OutOfMemoryError(total - size, total)

    def __del__(self):
        """Release the memory, also of a graph that was never captured.

        CuPy's pool and its free blocks refer to each other, so they are released
        explicitly.
        """
        self.graph = self.kept = self.numbers = self.inputs = self.block = None
        if hasattr(self, "pool"):
            self.pool.free_all_blocks()

    def work(self, function):
        kept, small = function(*self.inputs)
        return kept, Numbers(self.xp, small)

    def copy_inputs(self, inputs):
        """Copy the inputs to the graph's addresses: those of NumPy in one copy."""
        on_host = [isinstance(a, np.ndarray) for a in inputs]
        if any(on_host):
            views = self.parcel.views(self.staging)
            for view, a, host in zip(views, inputs, on_host, strict=True):
                if host:
                    view[...] = a
            self.block.set(self.staging)
        for target, a, host in zip(self.inputs, inputs, on_host, strict=True):
            if not host:
                target[...] = a

    def fits(self, inputs):
        """Whether the graph was captured for arrays of these shapes and dtypes."""
        return [(a.shape, a.dtype) for a in inputs] == self.parcel.specs

    def __call__(self, *inputs):
        """(kept, small) for other contents, by one copy each way and one wait.

        kept are new arrays of the GPU, small are NumPy's.
        """
        computed = self.xp.cuda.get_current_stream().record()
        with self.stream:
            self.stream.wait_event(computed)  # inputs on the GPU may still be computed there
            try:
                self.copy_inputs(inputs)
                self.graph.launch(stream=self.stream)
                kept = [a.copy() for a in self.kept]
                return kept, self.numbers.fetch()
            except BaseException:
                self.stream.synchronize()  # `staging` must not change while it is being copied
                raise
