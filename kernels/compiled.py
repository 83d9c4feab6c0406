"""What every `cpu.py` shares: kernels compiled once per precision, and arrays laid channels last.

The CPU kernels keep images channels last: (T, N, C, H, W) as seen from outside, (T, N, H, W, C) in memory. The channels of a pixel are
then neighbours, so that copying a patch moves long runs, and a sum over pixels is a sum of vectors, which the compiler puts into the
widest registers without reordering one addition. `empty` allocates such arrays; arrays in any other order are copied.
"""
from types import FunctionType

import numpy as np
from numba import get_num_threads, njit, set_num_threads

PRECISIONS = ("float32", "float64")


# ---- the ways a kernel may want an array ----------------------------------------------------------------------------

def channels_last(a):
    """(T, N, C, ...) seen as (T, N, ..., C)."""
    return a.transpose(0, 1, 3, 4, 2) if a.ndim == 5 else a.transpose(0, 1, 3, 2) if a.ndim == 4 else a


def empty(shape, dtype):
    """An uninitialised array of that shape; images with their channels last in memory."""
    if len(shape) < 4:
        return np.empty(shape, dtype)
    T, N, C, *rest = shape
    return np.moveaxis(np.empty((T, N, *rest, C), dtype), -1, 2)


def as_is(a):
    return a


def task_rows(a):
    """(T, ...) as a row of numbers per task: rows of a matrix (T, P) may be apart."""
    return a.reshape(len(a), -1)


# What the signature of a kernel may name: {kind: (Numba's type, F being the precision; how the array is seen; as which shape)}
KINDS = {"images": ("F[:,:,:,:,::1]", channels_last, None),
         "places": ("int16[:,:,:,:,::1]", channels_last, None),
         "pixels": ("F[:,:,::1]", channels_last, lambda a: (a.shape[0], -1, a.shape[-1])),
         "line": ("F[::1]", channels_last, lambda a: (-1,)),
         "lines": ("F[:,::1]", as_is, None),
         "table": ("F[:,:,::1]", as_is, None),
         "rows": ("F[:,:]", task_rows, None),
         "labels": ("int64[:,::1]", as_is, None),
         "losses": ("F[::1]", as_is, None),
         "real": ("F", None, None),
         "whole": ("int64", None, None),
         "pair": ("UniTuple(int64,2)", None, None)}


class Compiled:
    """A Numba function, compiled when first called, and kept in Numba's cache on disk: for float32 or float64, for one thread or many.

    arguments  the kinds of its arguments in order; those it fills end in "!", those it adds to in "+"
    grain      elements of the first array it fills below which waking other threads costs more than it brings
    The types are explicit, so that no order of a caller's array can start another compilation.
    """

    def __init__(self, function, arguments, grain=16384, versions=None):
        self.function, self.grain, self.versions = function, grain, {} if versions is None else versions
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        names = arguments.split()
        self.kinds = [KINDS[name.rstrip("!+")] for name in names]
        self.marks = [name[-1] if name[-1] in "!+" else "" for name in names]
        self.first = next(i for i, mark in enumerate(self.marks) if mark)

    def filling(self, arguments, grain=16384):
        """The same function where it fills other arguments."""
        return Compiled(self.function, arguments, grain, self.versions)

    def __call__(self, *args):
        out = args[self.first]
        dtype, parallel = out.dtype, out.size > self.grain and get_num_threads() > 1
        run = self.versions.get((dtype, parallel)) or self.compile(dtype, parallel)
        laid, copied = [], []
        for a, kind, mark in zip(args, self.kinds, self.marks, strict=True):
            laid.append(a if kind[1] is None else lay(a, dtype, kind, mark, copied))
        run(*laid)
        for a, copy in copied:
            a[...] = copy.reshape(a.shape)

    def compile(self, dtype, parallel):
        """The function for one precision, with its prange loops on many threads or one."""
        if dtype.name not in PRECISIONS:
            raise wrong_dtype(dtype)
        types = ", ".join(kind[0] for kind in self.kinds).replace("F", dtype.name)
        function = renamed(self.function, "_on_threads") if parallel else self.function
        run = njit(f"void({types})", parallel=parallel, cache=True, error_model="numpy", nogil=True)(function)
        self.versions[dtype, parallel] = run
        return run


def compiled(arguments, **options):
    """Decorator: see Compiled."""
    return lambda function: Compiled(function, arguments, **options)


def renamed(function, suffix):
    """A copy under another name: Numba's cache goes by name and types, and would not tell one thread from many."""
    copy = FunctionType(function.__code__, function.__globals__, function.__name__ + suffix)
    copy.__qualname__, copy.__module__ = copy.__name__, function.__module__
    return copy


def wrong_dtype(dtype):
    return TypeError(f"the cpu kernels take float32 and float64, got {dtype}; refmaml.kernels.reference() takes any dtype")


def lay(a, dtype, kind, mark, copied):
    """`a` as its kind lies in memory: a view if it can be; else a copy, noted in `copied` where it has to be brought back.

    A read-only array is copied too: Numba would take it for another type.
    """
    _, see, shape = kind
    wanted = dtype if a.dtype.kind in "fc" else a.dtype if mark or a.dtype == np.int16 else np.dtype(np.int64)
    if see is task_rows:
        seen, lies = a, a.ndim == 1 or a[0].flags.c_contiguous
    else:
        seen = see(a)
        lies = seen.flags.c_contiguous
    if not (lies and a.dtype == wanted and a.flags.writeable):
        if a.dtype.kind == "c":
            raise wrong_dtype(a.dtype)
        copy = np.empty(seen.shape, wanted) if mark == "!" else np.array(seen, wanted, order="C")
        if mark:
            copied.append((seen, copy))
        seen = copy
    if see is task_rows:
        return seen.reshape(len(seen), -1)
    return seen if shape is None else seen.reshape(shape(seen))


# ---- threads --------------------------------------------------------------------------------------------------------

def on_threads(kernel, threads):
    """The kernel on at most so many threads."""
    def run(*args):
        before = get_num_threads()
        set_num_threads(threads)                                     # Numba keeps this number for each Python thread of its own
        try:
            kernel(*args)
        finally:
            set_num_threads(before)
    return run
