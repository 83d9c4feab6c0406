"""Work on the GPU recorded once and replayed: a CUDA graph. Launching a hundred kernels one by one from Python takes longer than a small
net's arithmetic; launching them as one graph does not."""

from contextlib import suppress

import numpy as np

from refmaml.kernels.cuda_runtime.transfer import Numbers, Parcel

ATTEMPTS = 4  # recordings, until one is made without memory that was not there before


class Graph:
    """function(*arrays) -> (kept, small), recorded for arrays like `inputs` (NumPy's or CuPy's: their shapes and dtypes count).

    function   launches work and waits for nothing: it never looks at a number, and takes nothing to the GPU or back
    kept       the arrays it leaves on the GPU; small: a list of small ones that come back to the host

    A graph's kernels know addresses: inputs are copied to the place they were recorded with, and all memory that the recording takes
    comes from a pool of its own that nobody else gets anything from for as long as the graph lives. The function runs once before it is
    recorded, so that kernels are compiled and the pool holds what it needs: see `record`.
    """

    def __init__(self, xp, function, inputs):
        self.xp, cuda = xp, xp.cuda
        self.stream, self.pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self.parcel = Parcel(inputs)
        self.staging = np.frombuffer(
            cuda.alloc_pinned_memory(self.parcel.size), np.uint8, self.parcel.size
        )
        cuda.get_current_stream().synchronize()  # what the function reads was made there
        with self.stream, cuda.using_allocator(self.pool.malloc):
            self.block = xp.empty(self.parcel.size, np.uint8)
            self.inputs = self.parcel.views(self.block)
            self.put(inputs)
            self.work(function)
            self.stream.synchronize()
            self.record(function)

    def record(self, function):
        """Record it so that the pool does not grow meanwhile. A pool that finds no memory gives its free blocks back and tries again, but
        what is free while recording is what a recorded kernel will write to. So where it grew it is done again: now it holds that, too.

        Raises CuPy's OutOfMemoryError where it keeps growing.
        """
        for _ in range(ATTEMPTS):
            self.graph, held = None, self.pool.total_bytes()
            self.kept = self.numbers = None
            self.stream.begin_capture()
            try:
                self.kept, self.numbers = self.work(function)
            except BaseException:
                with suppress(
                    Exception
                ):  # the capture is over, whatever it came to; what went wrong first counts
                    self.stream.end_capture()
                raise
            self.graph = self.stream.end_capture()
            if self.pool.total_bytes() == held:
                return
        raise self.xp.cuda.memory.OutOfMemoryError(
            self.pool.total_bytes() - held, self.pool.total_bytes()
        )

    def __del__(self):
        """The memory, too, where nothing was recorded in the end: CuPy's pool and its free blocks hold one another until it is told."""
        self.graph = self.kept = self.numbers = self.inputs = self.block = None
        if hasattr(self, "pool"):
            self.pool.free_all_blocks()

    def work(self, function):
        kept, small = function(*self.inputs)
        return kept, Numbers(self.xp, small)

    def put(self, inputs):
        """The inputs' contents to where the graph reads them: NumPy's in one copy, the GPU's in one each."""
        host = [isinstance(a, np.ndarray) for a in inputs]
        if any(host):
            for place, a, here in zip(self.parcel.views(self.staging), inputs, host, strict=True):
                if here:
                    place[...] = a
            self.block.set(self.staging)
        for place, a, here in zip(self.inputs, inputs, host, strict=True):
            if not here:
                place[...] = a

    def fits(self, inputs):
        """Whether the graph was recorded for arrays like these."""
        return [(a.shape, a.dtype) for a in inputs] == self.parcel.specs

    def __call__(self, *inputs):
        """(kept, small) for other contents: kept as fresh arrays, small as NumPy's. One copy there, one back, one wait."""
        made = self.xp.cuda.get_current_stream().record()
        with self.stream:
            self.stream.wait_event(made)  # what the GPU's inputs hold may still be on its way there
            try:
                self.put(inputs)
                self.graph.launch(stream=self.stream)
                kept = [a.copy() for a in self.kept]
                return kept, self.numbers.fetch()
            except BaseException:
                self.stream.synchronize()  # nobody may write to `staging` while it is on its way
                raise
