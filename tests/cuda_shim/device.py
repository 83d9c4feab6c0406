"""A stand-in for a GPU: the launches that CuPy gets, on NumPy arrays.

Each launch runs in three schedules of threads, which must give the same bits.
"""

import ctypes

import numpy as np

SCHEDULES = {"forward": 0, "reverse": 1, "shuffled": 2}
ERRORS = {
    1: "only some threads of a block reached a barrier",
    2: "only some lanes of a warp reached an exchange",
}


class RaceError(AssertionError):
    """A kernel whose result depends on the order in which threads run."""


class ShimDevice:
    """A device for `refmaml.kernels.cuda_runtime.launcher.Launcher`.

    libraries  {dtype name: a library from build()}
    schedules  the names of the schedules to run
    launched   the names of the kernels that ran, with their precision
    """

    xp = np

    def __init__(self, libraries, schedules=tuple(SCHEDULES)):
        self.libraries, self.schedules, self.launched = libraries, schedules, set()

    def empty(self, shape, dtype):
        """NaN until it is filled (integers: -1)."""
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -1, dtype)

    def launch(self, operation, kernel, dtype, grid, threads, arguments, shared=0):
        """Run each schedule on the same contents of memory; keep the last result."""
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
        """One launch in one schedule.

        Arrays are copied before and after, so that AddressSanitizer knows their ends.
        """
        copies = {key(a): copy_of(a) for a in arguments if isinstance(a, np.ndarray)}
        values = [
            ctypes.c_void_p(copies[key(a)].ctypes.data) if isinstance(a, np.ndarray) else number(a)
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
                restore(a, copies[key(a)])


def key(a):
    """Equal for arrays of the same memory, as an output may be an input, too."""
    return a.ctypes.data, a.shape


def copy_of(a):
    """A copy with the same strides, in a block that ends with its last number."""
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
    """Copy `old` into an array, unless it is read-only: then it was not written."""
    if a.flags.writeable:
        a[...] = old


def number(a):
    """A NumPy scalar as the C type of its dtype."""
    return np.ctypeslib.as_ctypes_type(a.dtype)(a.item())
