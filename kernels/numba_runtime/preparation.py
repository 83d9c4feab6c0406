"""External functions made ready to run: loaded, or compiled by all processes that need
them.

Each process takes the largest function that no other process compiles, until all are
done; what another process has compiled is loaded from the cache on disk. So two
processes that start at the same time share the work. Where there is a second core, a
helper process takes part (helper_process.py).
"""

import threading

from refmaml.kernels.numba_runtime.compilation import LOAD, TRY, WAIT
from refmaml.kernels.numba_runtime.helper_process import helper

preparing = threading.RLock()


def prepare(wanted, precision, alone=False):
    """Makes external functions, and those that they call, ready in a precision.

    alone: without a helper process.
    """
    with preparing:
        missing = [
            function
            for function in with_called(wanted)
            if not function.prepared(precision) and not function.compile(precision, 1, 1, LOAD)
        ]
        if missing:
            with helper(missing, precision, alone):
                compile_all(missing, precision)


def with_called(wanted):
    """The functions and all that they call, in the order of discovery."""
    found = dict.fromkeys(wanted)
    waiting = list(found)
    while waiting:
        new = [called for called in waiting.pop().calls if called not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return list(found)


def compile_all(missing, precision):
    """Compiles what no other process compiles; then waits for the others."""
    waiting, total, done = sorted(missing, key=lambda f: -f.size), len(missing), 0
    while waiting:
        busy = []
        for function in waiting:
            if function.compile(precision, done + 1, total, TRY):
                done += 1
            else:
                busy.append(function)
        if len(busy) == len(waiting):
            busy.pop(0).compile(precision, done + 1, total, WAIT)
            done += 1
        waiting = busy
