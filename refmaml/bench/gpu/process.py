"""A program with a time limit.

At the limit the program and all processes that it started are killed. On Linux the
program also ends when the process that started it ends, for whatever reason.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

# Runs in the new process before the program. 1 is PR_SET_PDEATHSIG, which only Linux
# has.
GUARD = """
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl:
    prctl(1, 9)                                       # SIGKILL
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"{sys.argv[2]}: {error.strerror}", flush=True)
    os._exit(127)
"""


def run_limited(command, seconds, environment=None, on_line=None):
    """(exit status, lines of stdout and stderr); the status is None at the time limit.

    on_line  called with each line when it is printed
    A program that cannot be started has the status 127, as in a shell.
    """
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", GUARD, str(os.getpid()), *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    lines = []

    def read_output():
        with process.stdout:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if on_line:
                    on_line(lines[-1])

    reader = Thread(target=read_output, daemon=True)
    reader.start()
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        kill_tree(process)
    reader.join(timeout=5)
    return status, lines


def kill_tree(process):
    """Kill a process and all its descendants that still run.

    With /proc, that includes descendants that lead their own process group.
    """
    below = descendants(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid):
    """The ids of its child processes, their children, and so on; none without /proc."""
    children, found = {}, [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    for each in found:
        found.extend(children.get(each, []))
    return found[1:]
