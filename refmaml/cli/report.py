"""Progress messages of a command, and the record of versions and machine in its
results.
"""

import time
from contextlib import contextmanager
from math import isnan

import numpy as np

from refmaml.cli import mpi
from refmaml.environment import available_cores
from refmaml.environment import circumstances as circumstances  # also as report.circumstances
from refmaml.log import log
from refmaml.progress import tqdm_installed

SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_DRAWINGS, SECONDS_BETWEEN_FILES = 30, 0.1, 5


class PeriodicFile:
    """A file that is rewritten every few seconds while its contents grow.

    A command that is stopped loses little of it.

    write  writes the whole file
    """

    def __init__(self, write):
        self.write, self.written = write, time.perf_counter()

    def changed(self, now=False):
        """The contents have changed. The file is written if it is due, or if `now`."""
        if now or time.perf_counter() - self.written > SECONDS_BETWEEN_FILES:
            self.write()
            self.written = time.perf_counter()


@contextmanager
def progress(steps, quiet, title="", place=0, done=0):
    """A function to call with each Progress: a bar on a terminal, else a line now and
    then.

    steps         the total; None: unknown
    quiet         show nothing
    title, place  the bar's label and line, where there are several bars
    done          steps of earlier processes, which do not count for the speed
    """
    if quiet:
        yield lambda now: None
    elif mpi.shown_on_terminal() and tqdm_installed():
        from tqdm import tqdm

        options = {"unit": "step", "dynamic_ncols": True, "desc": title or None, "position": place}
        with tqdm(total=steps, initial=done, **options) as bar:
            show = Bar(bar)
            yield show
            show.redraw()
    else:
        yield Lines(steps, title)


class Bar:
    """A bar that is drawn at most ten times a second: a step may take less than a
    drawing.
    """

    def __init__(self, bar):
        self.bar, self.now, self.last = bar, None, None

    def __call__(self, now):
        self.now = now
        if self.last is None or time.monotonic() - self.last >= SECONDS_BETWEEN_DRAWINGS:
            self.redraw()

    def redraw(self):
        """Show the newest step and its metrics."""
        self.last = time.monotonic()
        if self.now is not None:
            self.bar.n = self.now.step
            self.bar.set_postfix_str(metrics(self.now), refresh=True)


class Lines:
    """A line on stderr for the first step, and then every SECONDS_BETWEEN_LINES."""

    def __init__(self, steps, title):
        self.title = f"{title}: " if title else ""
        self.total, self.last = f"/{steps}" if steps else "", None

    def __call__(self, now):
        if self.last is None or time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            log(f"{self.title}step {now.step}{self.total}, {now.seconds:.0f} s: {metrics(now)}")


def metrics(now, over=20):
    """Loss and accuracy as text, means over the last steps."""
    rows = now.curve[max(0, now.step - over) : now.step]
    loss, accuracy = (
        np.mean([getattr(row, name) for row in rows]) for name in ("loss", "accuracy")
    )
    return f"loss {loss:.4g}" + ("" if isnan(accuracy) else f", accuracy {100 * accuracy:.1f} %")


def record(evaluation):
    """An Evaluation as a JSON value."""
    return {
        evaluation.quantity: evaluation.mean,
        "interval": evaluation.interval,
        "tasks": len(evaluation.values),
    }


def cores():
    """How many processors this process may use."""
    return len(available_cores())
