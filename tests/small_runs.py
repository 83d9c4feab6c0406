"""Shared by tests of runs: a small run, its files, and a process of its own."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from command_line import train

from refmaml.training import checkpoint

ROOT = Path(__file__).parent.parent


def run(*more, out="run"):
    return train("--out", out, *more)


def left(out):
    """A run's parameters, optimiser and curve, but for the seconds."""
    now, _ = checkpoint.load(f"{out}/checkpoint.npz")
    with open(f"{out}/curve.csv", newline="") as file:
        return (
            now.step,
            now.meta.tobytes(),
            {k: a.tobytes() for k, a in now.state.items()},
            [row[:-1] for row in csv.reader(file)],
        )


def python(code, *arguments, **options):
    """A process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )
