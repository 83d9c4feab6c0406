"""A program with a time limit, after which it is ended with everything it started."""
import os
import signal
import subprocess
from contextlib import suppress
from threading import Thread


def limited(command, seconds, environment=None, tell=None):
    """(exit status, or None where it was ended after so many seconds; the lines it said on stdout and stderr).

    tell: called with each line as it comes. A program that cannot be started has the status 127, as in a shell.
    """
    try:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                   start_new_session=True)
    except OSError as error:
        return 127, [f"{command[0]}: {error.strerror}"]
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
    """The process and all it started that is still there; it leads a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
