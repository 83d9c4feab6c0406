"""The threads of the CPU kernels: how many there may be, and loops over tasks on them.

There are two kinds of threads. Functions with `prange` loops run on Numba's threads.
`parallel_for` runs on threads of Python that call functions which release Python's
global interpreter lock; they sleep while they wait, so that other processes lose
nothing.

After os.fork, a child process has none of the threads of its parent. Threads of Python
are then created anew. Numba's cannot be: with OpenMP, its usual threading layer, the
child would be terminated. If Numba's threads had been started before the fork, kernels
with `prange` loops run on one thread in the child. The results have the same bits.

NUMBA_THREADING_LAYER=workqueue is for programs with one Python thread: if two call
kernels at the same time, Numba terminates the process. Choose omp or tbb then, or
`kernels.cpu(threads=1)`, which never starts Numba's threads.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from numba import get_num_threads, set_num_threads, threading_layer


class ThreadLimit(threading.local):
    """The most threads that kernels called from this Python thread may use.

    None: as many as Numba is set to.
    """

    threads = None


limit = ThreadLimit()


def max_threads():
    """The most threads that a kernel called from this Python thread may use."""
    return limit.threads or get_num_threads()


def parallel_for(count, run, serial=False, threads=None):
    """run(lo, hi) over parts of range(count), one part on each of at most `threads`.

    serial: all of it on the calling thread. Raises what run raises.
    """
    threads = 1 if serial else min(count, threads or max_threads())
    ends = [count * i // threads for i in range(threads + 1)]
    jobs = [pool(threads).submit(run, lo, hi) for lo, hi in zip(ends[1:], ends[2:], strict=False)]
    run(0, ends[1])
    for job in jobs:
        job.result()


@cache
def pool(threads):
    """A pool of threads; created once per size and process."""
    return ThreadPoolExecutor(threads, thread_name_prefix="refmaml")


def on_threads(kernel, threads):
    """The kernel on at most so many threads."""

    def run(*args):
        before, limit.threads = limit.threads, threads
        try:
            return kernel(*args)
        finally:
            limit.threads = before

    return run


def with_numba_threads(threads, run, args):
    """run(*args) while Numba is set to so many threads."""
    before = get_num_threads()
    set_num_threads(threads)
    try:
        run(*args)
    finally:
        set_num_threads(before)


# ---- after a fork --------------------------------------------------------------------

lost_at_fork = threading.Event()  # set in a child whose parent had started Numba's threads


def numba_threads_usable():
    """Whether functions with `prange` loops may run on several threads."""
    return not lost_at_fork.is_set()


def after_fork_in_child():
    """Forgets the threads of the parent process."""
    pool.cache_clear()
    try:
        threading_layer()
    except ValueError:  # never started: this process may start its own
        return
    lost_at_fork.set()


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=after_fork_in_child)
