"""A kernel set whose arrays are on a GPU."""

from itertools import accumulate

import numpy as np

from refmaml.kernels.cuda_runtime.transfer import Numbers, send
from refmaml.kernels.kernel_set import KernelSet


class DeviceKernelSet(KernelSet):
    """A KernelSet of CuPy's arrays: copies between host and GPU go in as few as
    possible.
    """

    on_device = True

    def concatenate(self, arrays, axis=0):
        """The concatenation.

        CuPy's own sends a table of addresses to the GPU where there are more than eight
        arrays; this sends nothing.
        """
        shape, ends = list(arrays[0].shape), [0, *accumulate(a.shape[axis] for a in arrays)]
        shape[axis] = ends[-1]
        out = self.xp.empty(tuple(shape), np.result_type(*(a.dtype for a in arrays)))
        for start, end, a in zip(ends[:-1], ends[1:], arrays, strict=True):
            out[(slice(None),) * axis + (slice(start, end),)] = a
        return out

    def sum_segments(self, a, starts):
        """Sums of the consecutive column segments of a (T, P) that begin at `starts`:
        (T, L).

        CuPy's reduceat takes differences of running sums, in which digits cancel.
        """
        sums = self.xp.empty((len(a), len(starts)), a.dtype)
        for l, (start, end) in enumerate(zip(starts, [*starts[1:], a.shape[1]], strict=True)):
            sums[:, l] = a[:, start:end].sum(axis=1)
        return sums

    @property
    def out_of_memory(self):
        """The exception, or exceptions, that an allocation on the device may raise."""
        return self.xp.cuda.memory.OutOfMemoryError

    def to_device(self, *arrays):
        """The arrays as arrays of the kernels: all of NumPy's are sent in one copy."""
        on_host = [a for a in arrays if isinstance(a, np.ndarray)]
        sent = iter(send(self.xp, on_host) if on_host else ())
        return tuple(next(sent) if isinstance(a, np.ndarray) else a for a in arrays)

    def to_host(self, a):
        """An array as NumPy's."""
        return self.xp.asnumpy(a)

    def to_host_batched(self, arrays):
        """A list of small arrays as NumPy's: from a GPU in one copy, with one wait."""
        on_host = [isinstance(a, np.ndarray | np.generic) for a in arrays]
        away = [a for a, host in zip(arrays, on_host, strict=True) if not host]
        fetched = iter(Numbers(self.xp, away).fetch() if away else ())
        return [a if host else next(fetched) for a, host in zip(arrays, on_host, strict=True)]

    def free(self):
        """Return idle memory to the GPU."""
        self.xp.get_default_memory_pool().free_all_blocks()
