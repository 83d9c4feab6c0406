"""Tasks some at a time: as many as fit into memory."""

from dataclasses import replace

from refmaml.errors import OutOfMemoryError

# How many numbers are held at once, unless two tasks need more; and how many vectors
# (P,) of one task are alive at a time.
MEMORY, VECTORS = 3 << 23, 8
ADVICE = "(recompute=True, fewer inner steps, a smaller net or float32 need less)"


def tasks_at_once(method, net, batch, one_kernel):
    """How many tasks fit into MEMORY, in chunks of equal size.

    one_kernel  whether the method's inner loop can run as one kernel

    A task holds its vectors, and activations with their adjoints. As one kernel, each
    thread holds activations, and a task holds its vectors only. On a GPU: all tasks.
    """
    if net.kernels.on_device:
        return len(batch)
    x = batch.x_support
    steps = method.inner_steps if getattr(method, "kept", "last") == "passes" else 1
    held = (VECTORS + steps) * net.num_params + 2 * steps * net.activations(x.shape[1:])
    same = x.shape[2:] == batch.x_query.shape[2:]
    if same and one_kernel and net.whole_net(x.shape[2:], x.dtype):
        held = VECTORS * net.num_params
    most = max(2, MEMORY // held)
    return -(-len(batch) // -(-len(batch) // most))


def in_chunks(kernels, count, chunk, work):
    """work(start, stop) over 0 .. count, `chunk` at a time: the last chunk size.

    Where the GPU's memory ends, the chunk halves and its work is done again; work that
    ran out of memory must have left nothing behind.
    Raises OutOfMemoryError where not even one fits.
    """
    start = 0
    while start < count:
        stop = min(start + chunk, count)
        error = out_of_memory(kernels, work, start, stop)
        if error is None:
            start = stop
        else:
            chunk = halved(kernels, stop - start, error)
    return chunk


def with_fewer_tasks(kernels, run, work, tasks):
    """(run(work), the work that fitted): work.chunk halves where memory ends."""
    result = []

    def attempt(work):
        result.append(run(work))

    while error := out_of_memory(kernels, attempt, work):
        chunk = min(getattr(work, "chunk", None) or 1, tasks)
        work = replace(work, chunk=halved(kernels, chunk, error))
    return result[0], work


def halved(kernels, count, error):
    """Half of `count` tasks, after the GPU ran out of memory.

    Raises OutOfMemoryError for 1.
    """
    if count == 1:
        raise OutOfMemoryError(
            f"the GPU's memory: expected room for one task, got {error} {ADVICE}"
        )
    kernels.free()
    return count // 2


def out_of_memory(kernels, work, *arguments):
    """Run the work: None, or the GPU's message where its memory ran out.

    By then no array of the work is on the GPU.
    """
    try:
        work(*arguments)
    except kernels.out_of_memory as error:
        return first_line(error)
    return None


def first_line(error):
    """An exception's text in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
