"""A stand-in for the GPU: NumPy arrays in, the same launches as CuPy gets, each run in three schedules that must agree to the bit."""

import ctypes

import numpy as np

SCHEDULES = {"forward": 0, "reverse": 1, "shuffled": 2}
ERRORS = {
    1: "only some threads of a block reached a barrier",
    2: "only some lanes of a warp reached an exchange",
}


class RaceError(AssertionError):
    """A kernel whose result depends on the order in which threads ran."""


class ShimDevice:
    """What `refmaml.kernels.cuda_runtime.launcher.Launcher` needs of a device.

    libraries  {dtype name: a library from build()}
    schedules  the names of those to run
    launched   the names of the kernels that ran, with their precision
    """

    xp = np

    def __init__(self, libraries, schedules=tuple(SCHEDULES)):
        self.libraries, self.schedules, self.launched = libraries, schedules, set()

    def empty(self, shape, dtype):
        """NaN until it is filled (integers: -1)."""
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -1, dtype)

    def launch(self, operation, kernel, dtype, grid, threads, arguments, shared=0):
        """Every schedule from the same contents of memory; what the last one left is the result."""
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        before, first = [a.copy() for a in arrays], None
        self.launched.add((kernel, dtype))
        for schedule in self.schedules:
            for a, old in zip(arrays, before, strict=True):
                restore(a, old)
            self.run(kernel, dtype, grid, threads, arguments, shared, SCHEDULES[schedule])
            after = [a.tobytes() for a in arrays]
            if first is not None and after != first:
                raise RaceError(
                    f"{kernel}: the schedule {schedule} gives other bits than {self.schedules[0]}"
                )
            first = after

    def run(self, kernel, dtype, grid, threads, arguments, shared, schedule):
        """One launch. The arrays are brought over and back, as to a GPU, so that AddressSanitizer knows where each ends."""
        brought = {key(a): bring(a) for a in arguments if isinstance(a, np.ndarray)}
        values = [
            ctypes.c_void_p(brought[key(a)].ctypes.data) if isinstance(a, np.ndarray) else number(a)
            for a in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        error = getattr(self.libraries[dtype], f"run_{kernel}")(
            addresses, *grid, threads, shared, schedule
        )
        if error:
            raise RaceError(f"{kernel}: {ERRORS[error]}")
        for a in arguments:
            if isinstance(a, np.ndarray):
                restore(a, brought[key(a)])


def key(a):
    """Arrays in one place are one array: a kernel may be called with its output as an input."""
    return a.ctypes.data, a.shape


def bring(a):
    """A copy that lies in a block of its own, no longer than from its first number to its last, the tasks as far apart as before."""
    reach = (
        1
        + sum((extent - 1) * stride for extent, stride in zip(a.shape, a.strides, strict=True))
        // a.itemsize
    )
    copy = np.lib.stride_tricks.as_strided(
        np.empty(reach if a.size else 0, a.dtype), a.shape, a.strides
    )
    copy[...] = a
    return copy


def restore(a, old):
    """What may be written gets its old contents; an array that may not was not written."""
    if a.flags.writeable:
        a[...] = old


def number(a):
    """A number as C keeps it, by its own width."""
    return np.ctypeslib.as_ctypes_type(a.dtype)(a.item())
