"""Data prepared ahead of the step: while steps compute, a thread samples those to come."""

from contextlib import contextmanager

# A thread that is woken for each step costs more than a small step's tasks: it samples several at once, one, two, four and so on up to
# so many steps or bytes.
BURST, BYTES = 16, 8 << 20


@contextmanager
def ahead(sample, steps=None):
    """Within, `sample` (step -> Batch), whose next steps are under way by the time they are asked for.

    steps  where training ends: nothing beyond it is sampled; None: nobody knows
    A step's tasks come from counters, so who samples them, and when, changes no bit of them. What `sample` raises in the thread is
    raised where its step is asked for; what was prepared and never asked for is forgotten, with whatever it raised.
    """
    from concurrent.futures import ThreadPoolExecutor

    ready, coming, burst = (
        {},
        (range(0), None),
        1,
    )  # {step: outcome}; the steps under way and their future

    def prepared(step):
        nonlocal ready, coming, burst
        if step not in ready:
            ready = (
                coming[1].result() if step in coming[0] else outcomes(sample, range(step, step + 1))
            )
            coming = range(0), None
        batch, error = ready.pop(step)
        if error is not None:
            raise error
        if not coming[0]:
            first = max(ready, default=step) + 1
            size = 1 if batch is None else batch.nbytes  # None: a rank without a task
            end, burst = first + max(1, min(burst, BYTES // size)), min(2 * burst, BURST)
            coming = range(first, end if steps is None else min(end, steps)), None
            coming = coming[0], thread.submit(outcomes, sample, coming[0]) if coming[0] else None
        return batch

    with ThreadPoolExecutor(1, "refmaml-sample") as thread:
        yield prepared


def outcomes(sample, steps):
    """{step: (batch, None)}, up to the first step that raises: there it is (None, error)."""
    found = {}
    for step in steps:
        try:
            found[step] = sample(step), None
        except BaseException as error:  # raised again where the step is asked for
            found[step] = None, error
            break
    return found
