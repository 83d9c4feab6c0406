"""A second process that compiles beside the first one, into the same cache on disk.

It only saves time. Where it cannot be started, fails or is slow, the first process
compiles everything itself. It ends when it has nothing left to do or when its parent
ends, whichever is first: the parent's end closes its stdin.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from numba import config

FEWEST = 4  # functions to compile for which a second process is worth its start
CODE = """import sys, json
work = json.loads(sys.stdin.readline())
sys.path[:] = work["path"]
from refmaml.kernels.numba_runtime.helper_process import work_on
work_on(work)"""


@contextmanager
def helper(missing, precision, alone=False):
    """A helper process during a block, where it pays; it is ended with the block."""
    process = None if alone or len(missing) < FEWEST else start(missing, precision)
    try:
        yield process
    finally:
        if process is not None:
            end(process)


def start(missing, precision):
    """The helper process, or None where there is no core, or no Python, for it."""
    if cores() < 2 or not runs_python(sys.executable) or getattr(sys, "frozen", False):
        return None
    work = {
        "path": [str(folder) for folder in sys.path],
        "precision": precision,
        "functions": [function.name for function in missing],
    }
    environment = {**os.environ, "NUMBA_CACHE_DIR": config.CACHE_DIR}
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:  # no memory, no process left, or no permission
        return None
    with suppress(OSError):  # it has ended already
        process.stdin.write(json.dumps(work).encode() + b"\n")
        process.stdin.flush()
    return process


def end(process):
    """Ends the helper process and takes its exit status, so that no zombie remains."""
    with suppress(OSError):
        process.kill()
    with suppress(OSError):
        process.stdin.close()
    process.wait()


def cores():
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def runs_python(executable):
    """Whether a program is Python, and not one that Python is embedded in."""
    return bool(executable) and Path(executable).name.lower().startswith("python")


# ---- in the helper process -----------------------------------------------------------


def work_on(work):
    """Compiles the functions that the parent named."""
    from refmaml.kernels.numba_runtime.preparation import prepare

    threading.Thread(target=end_with_parent, daemon=True).start()
    functions = [named(name) for name in work["functions"]]
    prepare(functions, work["precision"], alone=True)


def named(name):
    """The External of a full name, whose module is imported."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function).external


def end_with_parent():
    """Ends this process when stdin is closed."""
    sys.stdin.read()
    os._exit(1)
