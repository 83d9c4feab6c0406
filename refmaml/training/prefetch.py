"""Prefetching: a thread samples the tasks of coming steps while a step computes."""

from contextlib import contextmanager

# Waking a thread for each step would cost more than sampling a small step's tasks. So
# it samples 1, 2, 4, ... steps at once, at most MAX_STEPS steps or MAX_BYTES bytes.
MAX_STEPS, MAX_BYTES = 16, 8 << 20


@contextmanager
def prefetch(sample, steps=None):
    """A block in which the function it yields returns what `sample` (step -> Batch)
    does.

    After each call, a thread samples the steps that follow.

    steps  the number of steps, beyond which nothing is sampled; None: unknown

    A step's tasks come from counters, so that neither the thread nor the time of
    sampling changes a bit of them. What `sample` raises in the thread is raised when
    its step is requested. What was sampled and never requested is dropped, with its
    exceptions.
    """
    from concurrent.futures import ThreadPoolExecutor

    ready, burst = {}, 1  # {step: (batch, error)}; how many steps to sample at once next
    pending, future = range(0), None  # the steps that the thread is sampling

    def prefetched(step):
        nonlocal ready, pending, future, burst
        if step not in ready:
            one_step = range(step, step + 1)
            ready = future.result() if step in pending else sample_steps(sample, one_step)
            pending = range(0)
        batch, error = ready.pop(step)
        if error is not None:
            raise error
        if not pending:
            first = max(ready, default=step) + 1
            size = 1 if batch is None else batch.nbytes  # None: a rank without a task
            end = first + max(1, min(burst, MAX_BYTES // size))
            burst = min(2 * burst, MAX_STEPS)
            pending = range(first, end if steps is None else min(end, steps))
            future = thread.submit(sample_steps, sample, pending) if pending else None
        return batch

    with ThreadPoolExecutor(1, "refmaml-sample") as thread:
        yield prefetched


def sample_steps(sample, steps):
    """{step: (batch, None)} up to a step that raises, which has (None, error)."""
    found = {}
    for step in steps:
        try:
            found[step] = sample(step), None
        except BaseException as error:  # raised again when the step is requested
            found[step] = None, error
            break
    return found
