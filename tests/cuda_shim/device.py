"""A stand-in for the GPU: NumPy arrays in, the same launches as CuPy gets, each run in three schedules that must agree to the bit."""
import ctypes

import numpy as np

SCHEDULES = {"forward": 0, "reverse": 1, "shuffled": 2}
ERRORS = {1: "only some threads of a block reached a barrier"}


class RaceError(AssertionError):
    """A kernel whose result depends on the order in which threads ran."""


class ShimDevice:
    """What `refmaml.kernels.launcher.Launcher` needs of a device.

    libraries  {dtype name: a library from build()}
    launched   the names of the kernels that ran, with their precision
    """
    xp = np

    def __init__(self, libraries):
        self.libraries, self.launched = libraries, set()

    def empty(self, shape, dtype):
        """NaN until it is filled (integers: -1)."""
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else -1, dtype)

    def launch(self, operation, kernel, dtype, grid, threads, arguments):
        """Every schedule from the same contents of memory; what the last one left is the result."""
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        before, first = [a.copy() for a in arrays], None
        self.launched.add((kernel, dtype))
        for schedule, number in SCHEDULES.items():
            for a, old in zip(arrays, before, strict=True):
                restore(a, old)
            self.run(kernel, dtype, grid, threads, arguments, number)
            after = [a.tobytes() for a in arrays]
            if first is not None and after != first:
                raise RaceError(f"{kernel}: the schedule {schedule} gives other bits than {next(iter(SCHEDULES))}")
            first = after

    def run(self, kernel, dtype, grid, threads, arguments, schedule):
        values = [argument(a) for a in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        error = getattr(self.libraries[dtype], f"run_{kernel}")(addresses, *grid, threads, schedule)
        if error:
            raise RaceError(f"{kernel}: {ERRORS[error]}")


def restore(a, old):
    """What may be written gets its old contents; an array that may not was not written."""
    if a.flags.writeable:
        a[...] = old


def argument(a):
    """An argument as C keeps it: arrays by their address, NumPy's numbers by their own width."""
    if isinstance(a, np.ndarray):
        return ctypes.c_void_p(a.ctypes.data)
    return np.ctypeslib.as_ctypes_type(a.dtype)(a.item())
