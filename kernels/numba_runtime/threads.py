"""Threads that share a piece of work, and how many there may be.

They are Python's, calling functions that let go of Python's lock; no thread spins while it waits, so that others on the machine lose
nothing.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from numba import get_num_threads, set_num_threads


class Scope(threading.local):
    """How many threads the kernels called from here may take; None: as many as Numba was set to. Each Python thread has its own."""

    threads = None


scope = Scope()


def allowed():
    """How many threads a kernel called from here may take."""
    return scope.threads or get_num_threads()


def share(count, run, alone=False, threads=None):
    """run(lo, hi) over parts of range(count), each on a thread; on this one only if `alone`. threads: at most so many."""
    threads = 1 if alone else min(count, threads or allowed())
    ends = [count * i // threads for i in range(threads + 1)]
    waiting = [
        pool(threads).submit(run, lo, hi) for lo, hi in zip(ends[1:], ends[2:], strict=False)
    ]
    run(0, ends[1])
    for job in waiting:
        job.result()


@cache
def pool(threads):
    """Threads that wait for work."""
    return ThreadPoolExecutor(threads, thread_name_prefix="refmaml")


def on_threads(kernel, threads):
    """The kernel on at most so many threads."""

    def run(*args):
        before, scope.threads = scope.threads, threads
        try:
            return kernel(*args)
        finally:
            scope.threads = before

    return run


def on_numba_threads(threads, run, args):
    """run(*args) with Numba set to so many threads meanwhile."""
    before = get_num_threads()
    set_num_threads(threads)
    try:
        run(*args)
    finally:
        set_num_threads(before)
