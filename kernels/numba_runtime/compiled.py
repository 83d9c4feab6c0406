"""What every `cpu.py` shares: kernels compiled once per precision, and arrays laid channels last.

The CPU kernels keep images channels last: (T, N, C, H, W) as seen from outside, (T, N, H, W, C) in memory. The channels of a pixel are
then neighbours, and a sum over pixels is a sum of vectors, which the compiler puts into the widest registers without reordering one
addition. A kernel set's `empty` allocates such arrays; arrays in any other order are copied.
"""

import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import get_num_threads, njit

from refmaml.kernels.numba_runtime.external_functions import link, renamed
from refmaml.kernels.numba_runtime.threads import on_numba_threads, scope

PRECISIONS = ("float32", "float64")


def channels_last_in(memory):
    """`empty` of a kernel set: arrays in that memory; images with their channels last."""

    def empty(shape, dtype):
        if len(shape) < 4:
            return memory.empty(shape, dtype)
        T, N, C, *rest = shape
        return memory.empty((T, N, *rest, C), dtype).transpose(
            (0, 1, 4, 2, 3) if len(rest) == 2 else (0, 1, 3, 2)
        )

    return empty


# ---- the ways a kernel may want an array ----------------------------------------------------------------------------


class Kind(NamedTuple):
    """type: Numba's, F being the precision. order: the array, its axes in the order they must have in memory; None for numbers.
    shape: that array in the shape the kernel wants. dtype: None for the precision. apart: the tasks may lie apart."""

    type: str
    order: object = None
    shape: object = None
    dtype: object = None
    apart: bool = False


def as_is(a):
    return a


def channels_last(a):
    """(T, N, C, ...) as (T, N, ..., C)."""
    return (
        a.transpose(0, 1, 3, 4, 2) if a.ndim == 5 else a.transpose(0, 1, 3, 2) if a.ndim == 4 else a
    )


def tasks_in_rows(a):
    return a.reshape(len(a), -1)


def pixels_in_rows(a):
    return a.reshape(len(a), -1, a.shape[-1])


KINDS = {
    "images": Kind("F[:,:,:,:,::1]", channels_last, as_is),  # (T, N, H, W, C)
    "places": Kind("int16[:,:,:,:,::1]", channels_last, as_is, np.dtype(np.int16)),
    "pixels": Kind("F[:,:,::1]", channels_last, pixels_in_rows),  # (T, M, C), M = N L
    "line": Kind(
        "F[::1]", channels_last, np.ndarray.ravel
    ),  # one number after the other, of any shape
    "rows": Kind("F[:,:]", as_is, tasks_in_rows, apart=True),  # (T, p), each row in one piece
    "table": Kind("F[:,:,::1]", as_is, as_is),
    "losses": Kind("F[::1]", as_is, as_is),
    "labels": Kind("int64[:,::1]", as_is, as_is, np.dtype(np.int64)),
    "list": Kind("int64[::1]"),  # from here on: taken as they come
    "real": Kind("F"),
    "whole": Kind("int64"),
    "pair": Kind("UniTuple(int64,2)"),
}


def lay(a, precision, kind, mark, copied):
    """`a` as a kernel wants it: a view if it can be; else a copy, noted in `copied` if it has to be brought back.

    A read-only array is copied too: Numba would take it for another type.
    """
    dtype, seen = kind.dtype or precision, kind.order(a)
    if a.dtype == dtype and (seen[0] if kind.apart else seen).flags.carray:
        return kind.shape(seen)
    if a.dtype.kind == "c":
        raise wrong_dtype(a.dtype)
    copy = np.empty(seen.shape, dtype) if mark == "!" else np.array(seen, dtype, order="C")
    if mark:
        copied.append((seen, copy))
    return kind.shape(copy)


def wrong_dtype(dtype):
    return TypeError(
        f"the cpu kernels take float32 and float64, got {dtype}; refmaml.kernels.reference() takes any dtype"
    )


# ---- compilation -----------------------------------------------------------------------------------------------------


class Compiled:
    """A Numba function, compiled when first called, and kept in Numba's cache on disk: for float32 or float64, for one thread or many.

    arguments  the kinds of its arguments in order; those it fills end in "!", those it adds to in "+"
    grain      elements of the first array it fills below which waking other threads costs more than it brings
    The types are explicit, so that no order of a caller's array can start another compilation.
    """

    def __init__(self, function, arguments, grain=16384, versions=None):
        self.function, self.grain, self.versions = (
            function,
            grain,
            {} if versions is None else versions,
        )
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        names = arguments.split()
        self.kinds = [KINDS[name.rstrip("!+")] for name in names]
        self.marks = [name[-1] if name[-1] in "!+" else "" for name in names]
        self.first = next(i for i, mark in enumerate(self.marks) if mark)

    def filling(self, arguments, grain):
        """The same function where it fills other arguments."""
        return Compiled(self.function, arguments, grain, self.versions)

    def __call__(self, *args):
        out, laid, copied = args[self.first], [], []
        precision, much = out.dtype, out.size > self.grain
        threads = scope.threads or (get_num_threads() if much else 1)
        run = self.version(precision, much and threads > 1)
        for a, kind, mark in zip(args, self.kinds, self.marks, strict=True):
            laid.append(a if kind.order is None else lay(a, precision, kind, mark, copied))
        if much and threads > 1 and scope.threads:
            on_numba_threads(threads, run, laid)
        else:
            run(*laid)
        for a, copy in copied:
            a[...] = copy

    def version(self, precision, parallel):
        """The function for one precision, with its prange loops on many threads or one."""
        run = self.versions.get((precision, parallel))
        if (
            run is None and not parallel and scope.threads != 1
        ):  # little work may as well go to threads if that version is there
            run = self.versions.get((precision, True))
        return run or self.compile(precision, parallel)

    def compile(self, precision, parallel):
        if precision.name not in PRECISIONS:
            raise wrong_dtype(precision)
        types = ", ".join(kind.type for kind in self.kinds).replace("F", precision.name)
        function = renamed(self.function, f"{'threads' if parallel else 'thread'}_{shared_code()}")
        link(precision, shared_code())
        run = njit(
            f"void({types})", parallel=parallel, cache=True, error_model="numpy", nogil=True
        )(function)
        self.versions[precision, parallel] = run
        return run


def compiled(arguments, **options):
    """Decorator: see Compiled."""
    return lambda function: Compiled(function, arguments, **options)


@cache
def compiled_on_one_thread(function, types, precision):
    """A function compiled for a precision, F in its types, to run on the thread that calls it, without Python's lock."""
    if precision.name not in PRECISIONS:
        raise wrong_dtype(precision)
    link(precision, shared_code())
    return njit(
        f"void({', '.join(types).replace('F', precision.name)})",
        cache=True,
        error_model="numpy",
        nogil=True,
    )(renamed(function, shared_code()))


@cache
def shared_code():
    """A checksum of all files that kernels are compiled from."""
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in sorted(Path(__file__).parent.glob('**/*.py')))):08x}"
