"""Where NumPy's arrays become those of a GPU: a net's vectors and tasks, in one copy, and what is checked on the way.

Nothing to do where the kernels compute on NumPy's arrays. What comes back as NumPy's: KernelSet.match_input.
"""

import numpy as np

from refmaml.errors import OutOfMemoryError
from refmaml.execution.chunks import short


def bring(net, vectors, *sets):
    """(vectors, sets (x, y)) where the net's kernels compute; arrays of the GPU are taken as they are.

    Raises ArgumentError, OutOfMemoryError.
    """
    if not net.kernels.on_device:
        return vectors, sets
    flat = [a for part in checked(net, *sets) for a in part]
    try:
        brought = net.kernels.to_device(*vectors, *flat)
    except net.kernels.out_of_memory as error:
        raise OutOfMemoryError(
            f"the GPU's memory: expected room for the tasks themselves, got {short(error)}"
        ) from None
    parts = brought[len(vectors) :]
    return brought[: len(vectors)], tuple(zip(parts[::2], parts[1::2], strict=True))


def checked(net, *sets, look=True):
    """The sets (x, y) as a GPU's kernels take them, labels as int64. Raises ArgumentError.

    look  at labels in CuPy's arrays too, all in one copy, for which the host waits; to a kernel a label that names no output is a NaN
    """
    for x, y in sets:
        net.check_set(x, y, values=False)
    loss = net.loss_function
    extremes = [loss.extremes(y) if look or isinstance(y, np.ndarray) else [] for _, y in sets]
    known = iter(net.kernels.to_host_batched([a for part in extremes for a in part]))
    for (x, _), part in zip(sets, extremes, strict=True):
        if part:
            loss.check_values(net.output_shape(x.shape[2:]), [next(known) for _ in part])
    return tuple(
        (x, y.astype(np.int64, copy=False) if y.dtype.kind in "iu" else y) for x, y in sets
    )


def bring_pass(net, w, x, y):
    """w, x, y of one pass where the net's kernels compute; if all are there already they were checked when they came."""
    if not net.kernels.on_device or not any(isinstance(a, np.ndarray) for a in (w, x, y)):
        return w, x, y
    (w,), (xy,) = bring(net, (w,), (x, y))
    return w, *xy
