"""Many tasks, a few at a time, and fewer where the GPU's memory does not hold them."""

from refmaml.errors import OutOfMemoryError


def in_chunks(kernels, count, chunk, work):
    """work(start, stop) over 0 .. count, at most `chunk` at a time; half as many whenever the GPU runs out of memory. Returns how many it
    came to. Work that runs out must have left no trace.

    Raises OutOfMemoryError where not even one fits.
    """
    start = 0
    while start < count:
        stop = min(start + chunk, count)
        said = attempt(kernels, work, start, stop)
        if said is None:
            start = stop
            continue
        if stop - start == 1:
            raise OutOfMemoryError(
                f"the GPU's memory: expected room for one task, got {said} "
                "(recompute=True, fewer inner steps, a smaller net or float32 need less)"
            )
        chunk = (stop - start) // 2
        kernels.free()
    return chunk


def attempt(kernels, work, start, stop):
    """None, or what the GPU said when its memory ran out; by then nothing of the work is held any more."""
    try:
        work(start, stop)
    except kernels.out_of_memory as error:
        return short(error)


def short(error):
    """What an exception says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
