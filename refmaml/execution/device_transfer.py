"""NumPy arrays to a GPU: vectors and tasks in one copy, and the checks on the way.

Where the kernels compute on NumPy's arrays there is nothing to do. The way back is
KernelSet.match_input.
"""

import numpy as np

from refmaml.errors import OutOfMemoryError
from refmaml.execution.chunks import first_line


def to_device(net, vectors, *sets):
    """(vectors, sets (x, y)) as arrays of the net's kernels.

    Arrays that are on the GPU stay as they are.
    Raises ArgumentError, OutOfMemoryError.
    """
    if not net.kernels.on_device:
        return vectors, sets
    flat = [a for part in checked(net, *sets) for a in part]
    try:
        moved = net.kernels.to_device(*vectors, *flat)
    except net.kernels.out_of_memory as error:
        raise OutOfMemoryError(
            "the GPU's memory: expected room for the tasks themselves, got " + first_line(error)
        ) from None
    parts = moved[len(vectors) :]
    return moved[: len(vectors)], tuple(zip(parts[::2], parts[1::2], strict=True))


def checked(net, *sets, device_labels=True):
    """The sets (x, y) as a GPU's kernels take them, labels as int64.

    Raises ArgumentError.

    device_labels  also check the range of labels that are on the GPU already, all in
                   one copy, for which the host waits; a kernel makes NaN of a label
                   that names no output
    """
    for x, y in sets:
        net.check_set(x, y, values=False)
    loss = net.loss_function
    extremes = [
        loss.extremes(y) if device_labels or isinstance(y, np.ndarray) else [] for _, y in sets
    ]
    known = iter(net.kernels.to_host_batched([a for part in extremes for a in part]))
    for (x, _), part in zip(sets, extremes, strict=True):
        if part:
            loss.check_values(net.output_shape(x.shape[2:]), [next(known) for _ in part])
    return tuple((x, as_labels(y)) for x, y in sets)


def as_labels(y):
    """Integer labels as int64, the type that kernels read; real targets as they are."""
    return y.astype(np.int64, copy=False) if y.dtype.kind in "iu" else y


def pass_to_device(net, w, x, y):
    """w, x, y of one pass as arrays of the net's kernels.

    Arrays that are all on the GPU were checked on the way there.
    """
    if not net.kernels.on_device or not any(isinstance(a, np.ndarray) for a in (w, x, y)):
        return w, x, y
    (w,), (xy,) = to_device(net, (w,), (x, y))
    return w, *xy
