"""The memory layouts that the CPU kernels take, and how an array is brought into one.

The CPU kernels keep images channels last: callers see (T, N, C, H, W), memory holds
(T, N, H, W, C). The channels of a pixel are then neighbours, and a sum over pixels is a
sum of vectors. The compiler puts such a sum into the widest registers without
reordering a single addition. A kernel set's `empty` allocates such arrays. Arrays in
any other order are copied.
"""

from typing import NamedTuple

import numpy as np


def channels_last_in(memory):
    """`empty` of a kernel set: arrays from a Memory, images with their
    channels last.
    """

    def empty(shape, dtype):
        if len(shape) < 4:
            return memory.empty(shape, dtype)
        T, N, C, *rest = shape
        return memory.empty((T, N, *rest, C), dtype).transpose(
            (0, 1, 4, 2, 3) if len(rest) == 2 else (0, 1, 3, 2)
        )

    return empty


class Layout(NamedTuple):
    """How a kernel takes one argument.

    type        its Numba type; F stands for the precision
    reorder     array -> its axes in the order they must have in memory; None: a number,
                a tuple or a list of offsets, passed as it is
    reshape     reordered array -> the shape that the kernel takes
    dtype       a fixed dtype; None: the precision
    gaps        whether there may be gaps in memory between the tasks
    """

    type: str
    reorder: object = None
    reshape: object = None
    dtype: object = None
    gaps: bool = False


def unchanged(a):
    return a


def channels_last(a):
    """(T, N, C, ...) as (T, N, ..., C)."""
    return (
        a.transpose(0, 1, 3, 4, 2) if a.ndim == 5 else a.transpose(0, 1, 3, 2) if a.ndim == 4 else a
    )


def one_row_per_task(a):
    return a.reshape(len(a), -1)


def one_row_per_pixel(a):
    return a.reshape(len(a), -1, a.shape[-1])


LAYOUTS = {
    "images": Layout("F[:,:,:,:,::1]", channels_last, unchanged),  # (T, N, H, W, C)
    "examples": Layout("F[:,:,:,::1]", channels_last, unchanged),  # (T, N, L, C)
    "winners": Layout("int16[:,:,:,:,::1]", channels_last, unchanged, np.dtype(np.int16)),
    "winners32": Layout("int32[:,:,:,:,::1]", channels_last, unchanged, np.dtype(np.int32)),
    "pixels": Layout("F[:,:,::1]", channels_last, one_row_per_pixel),  # (T, M, C), M = N L
    "flat": Layout("F[::1]", channels_last, np.ndarray.ravel),  # all elements, any shape
    "rows": Layout("F[:,:]", unchanged, one_row_per_task, gaps=True),  # (T, P), rows contiguous
    "table": Layout("F[:,:,::1]", unchanged, unchanged),
    "losses": Layout("F[::1]", unchanged, unchanged),
    "labels": Layout("int64[:,::1]", unchanged, unchanged, np.dtype(np.int64)),
    "offsets": Layout("int64[::1]"),
    "real": Layout("F"),
    "integer": Layout("int64"),
    "pair": Layout("UniTuple(int64,2)"),
}


def arrange(a, precision, layout, mark, copies):
    """`a` in a layout: a view where possible, else a copy.

    mark "!" (filled) or "+" (added to): the pair (a, copy) is appended to `copies`, so
    that the caller writes the result back. A read-only array is copied too, because
    Numba gives it another type.
    """
    dtype, reordered = layout.dtype or precision, layout.reorder(a)
    if a.dtype == dtype and (reordered[0] if layout.gaps else reordered).flags.carray:
        return layout.reshape(reordered)
    if a.dtype.kind == "c":
        raise wrong_dtype(a.dtype)
    copy = (
        np.empty(reordered.shape, dtype) if mark == "!" else np.array(reordered, dtype, order="C")
    )
    if mark:
        copies.append((reordered, copy))
    return layout.reshape(copy)


def wrong_dtype(dtype):
    return TypeError(
        f"the cpu kernels take float32 and float64, got {dtype}; "
        "refmaml.kernels.reference() takes any dtype"
    )
