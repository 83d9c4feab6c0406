"""Data prepared ahead of the step: while one step computes, a thread samples the next."""
from contextlib import contextmanager


@contextmanager
def ahead(sample, steps=None):
    """Within, `sample` (step -> anything) with the next step's result under way by the time it is asked for.

    steps  where training ends: nothing beyond it is sampled; None: nobody knows
    A step's tasks come from counters, so who samples them, and when, changes no bit of them. What `sample` raises in the thread is
    raised where its step is asked for; what was prepared and never asked for is forgotten with whatever it raised.
    """
    from concurrent.futures import ThreadPoolExecutor
    waiting = {}
    with ThreadPoolExecutor(1, "refmaml-sample") as thread:
        def prepared(step):
            batch = waiting.pop(step).result() if step in waiting else sample(step)
            waiting.clear()
            if steps is None or step + 1 < steps:
                waiting[step + 1] = thread.submit(sample, step + 1)
            return batch
        yield prepared
