"""Progress of compilation on stderr.

The first use of the CPU kernels on a machine takes some ten seconds: Numba compiles
them for the processor and keeps the machine code on disk. Later processes load it in
about a second. While a function is compiled for longer than FIRST_LINE seconds, a line
on stderr names it and the seconds spent so far; another follows every NEXT_LINE
seconds. Nothing is printed for functions that the cache on disk has.

The environment variable REFMAML_QUIET, set to anything but "", turns the lines off. It
is read whenever a line would be printed, so a program may set it in os.environ.
"""

import os
import sys
from contextlib import suppress
from threading import Event, Thread
from time import perf_counter

FIRST_LINE, NEXT_LINE = 1.0, 10.0  # seconds after which lines are printed


class Progress:
    """A context manager around the compilation of one function.

    `start` is called when the compilation begins; leaving the context ends the report.
    """

    seconds_before = 0.0  # spent on all compilations of this process that have ended

    def __init__(self, name, number, total):
        self.name, self.number, self.total = name, number, total
        self.finished, self.begin = Event(), None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.finished.set()
        if self.begin is not None:
            Progress.seconds_before += perf_counter() - self.begin

    def start(self):
        self.begin = perf_counter()
        Thread(target=self.report, name="refmaml-progress", daemon=True).start()

    def report(self):
        """Prints lines until the compilation has finished."""
        wait = FIRST_LINE
        while not self.finished.wait(wait):
            print_line(self.line())
            wait = NEXT_LINE

    def line(self):
        seconds = Progress.seconds_before + perf_counter() - self.begin
        count = f"function {self.number} of {self.total}, " if self.total > 1 else ""
        return (
            f"refmaml: compiling {self.name} for this processor ({count}{seconds:.0f} s so far; "
            "later runs load it from a cache)"
        )


def print_line(line):
    """Prints to stderr unless REFMAML_QUIET is set; ignores write errors."""
    if os.environ.get("REFMAML_QUIET") or sys.stderr is None:
        return
    with suppress(OSError, ValueError):  # a full disk, a closed pipe or stream
        print(line, file=sys.stderr, flush=True)
