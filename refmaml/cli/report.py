"""What a command tells people while it works, and what it leaves for machines."""

import time
from contextlib import contextmanager
from math import isnan

import numpy as np

from refmaml.cli import mpi
from refmaml.environment import available_cores
from refmaml.environment import circumstances as circumstances  # also as report.circumstances
from refmaml.log import say
from refmaml.progress import installed

SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_DRAWINGS, SECONDS_BETWEEN_FILES = 30, 0.1, 5


class Growing:
    """A file that is written anew as what it holds grows, now and then: whoever stops the command loses little of it.

    write  writes the whole file
    """

    def __init__(self, write):
        self.whole, self.written = write, time.perf_counter()

    def grown(self, now=False):
        """There is more to write; now: at once."""
        if now or time.perf_counter() - self.written > SECONDS_BETWEEN_FILES:
            self.whole()
            self.written = time.perf_counter()


@contextmanager
def progress(steps, quiet, title="", place=0, done=0):
    """A function to call with each Progress: a bar on a terminal, a line now and then elsewhere.

    quiet         show nothing
    title, place  what to call the bar, and its line, where there are several
    done          the steps of earlier processes, which say nothing of this one's speed
    """
    if quiet:
        yield lambda now: None
    elif mpi.shown_on_terminal() and installed():
        from tqdm import tqdm

        with tqdm(
            total=steps,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            desc=title or None,
            position=place,
        ) as bar:
            show = Bar(bar)
            yield show
            show.redraw()
    else:
        yield Lines(steps, title)


class Bar:
    """A bar that is drawn ten times a second at most: a step may take less than the drawing."""

    def __init__(self, bar):
        self.bar, self.now, self.last = bar, None, None

    def __call__(self, now):
        self.now = now
        if self.last is None or time.monotonic() - self.last >= SECONDS_BETWEEN_DRAWINGS:
            self.redraw()

    def redraw(self):
        """The newest step and its figures."""
        self.last = time.monotonic()
        if self.now is not None:
            self.bar.n = self.now.step
            self.bar.set_postfix_str(figures(self.now), refresh=True)


class Lines:
    """A line on stderr for the first step, and then every half minute."""

    def __init__(self, steps, title):
        self.title = f"{title}: " if title else ""
        self.total, self.last = f"/{steps}" if steps else "", None

    def __call__(self, now):
        if self.last is None or time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            say(f"{self.title}step {now.step}{self.total}, {now.seconds:.0f} s: {figures(now)}")


def figures(now, over=20):
    """Loss and accuracy, means over the last steps."""
    rows = now.curve[max(0, now.step - over) : now.step]
    loss, accuracy = (
        np.mean([getattr(row, name) for row in rows]) for name in ("loss", "accuracy")
    )
    return f"loss {loss:.4g}" + ("" if isnan(accuracy) else f", accuracy {100 * accuracy:.1f} %")


def record(evaluation):
    """An Evaluation as JSON can hold it."""
    return {
        evaluation.quantity: evaluation.mean,
        "interval": evaluation.interval,
        "tasks": len(evaluation.values),
    }


def cores():
    """How many processors this process may use."""
    return len(available_cores())
