"""What a command tells people while it works, and what it leaves for machines."""
import os
import platform
import sys
import time
from contextlib import contextmanager
from math import isnan
from pathlib import Path

import numpy as np

from refmaml.version import __version__

SECONDS_BETWEEN_LINES = 30


@contextmanager
def progress(steps, quiet):
    """A function to call with each Progress: a bar on a terminal, now and then a line elsewhere, nothing where `quiet`."""
    if quiet:
        yield lambda now: None
    elif sys.stderr.isatty():
        from tqdm import tqdm
        with tqdm(total=steps, unit="step", dynamic_ncols=True) as bar:
            def show(now):
                bar.n = now.step
                bar.set_postfix_str(figures(now), refresh=False)
                bar.update(0)
            yield show
    else:
        yield Lines(steps)


class Lines:
    """A line on stderr for the first step, and then every half minute."""

    def __init__(self, steps):
        self.total, self.last = f"/{steps}" if steps else "", None

    def __call__(self, now):
        if self.last is None or time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            print(f"step {now.step}{self.total}, {now.seconds:.0f} s: {figures(now)}", file=sys.stderr, flush=True)


def figures(now, over=20):
    """Loss and accuracy, means over the last steps."""
    rows = now.curve[max(0, now.step - over):now.step]
    loss, accuracy = (np.mean([getattr(row, name) for row in rows]) for name in ("loss", "accuracy"))
    return f"loss {loss:.4g}" + ("" if isnan(accuracy) else f", accuracy {100 * accuracy:.1f} %")


def record(evaluation):
    """An Evaluation as JSON can hold it."""
    return {evaluation.quantity: evaluation.mean, "interval": evaluation.interval, "tasks": len(evaluation.values)}


def versions():
    """What computed a result."""
    return {"refmaml": __version__, "python": platform.python_version(), "numpy": np.__version__}


def machine():
    """Where a result was computed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"system": platform.system(), "processor": processor(), "cores": cores}


def processor():
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
