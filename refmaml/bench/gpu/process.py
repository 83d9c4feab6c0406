"""A program with a time limit, after which it is ended with everything it started; it ends too when who started it does, however."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

# Runs in the new process before the program does. 1 is PR_SET_PDEATHSIG, which only Linux has.
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


def limited(command, seconds, environment=None, tell=None):
    """(exit status, or None where it was ended after so many seconds; the lines it said on stdout and stderr).

    tell: called with each line as it comes. A program that cannot be started has the status 127, as in a shell.
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

    def listen():
        with process.stdout:
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if tell:
                    tell(lines[-1])

    listener = Thread(target=listen, daemon=True)
    listener.start()
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        end(process)
    listener.join(timeout=5)
    return status, lines


def end(process):
    """The process and all it started that is still there: what leads a group of its own too, where /proc tells of it."""
    below = descendants(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in below:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid):
    """The processes it started, those they started, and so on; none without Linux's /proc."""
    children, found = {}, [pid]
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # ended meanwhile
            parent = int(place.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.parent.name))
    for each in found:
        found.extend(children.get(each, []))
    return found[1:]
