"""Trains the policies of the navigation figure, and keeps a checkpoint at each stop.

    python benchmarks/navigation/runs.py maml-0 erm-0 ... [--folder runs/navigation]

A run that was stopped goes on where it stood. Without names: all runs, one after
another. benchmarks/navigation/figure.py reads the folder.
"""

import argparse
import shutil
from pathlib import Path

from refmaml.cli import main

STOPS = (20, 40, 60, 80, 100)
SEEDS = (0, 1, 2)
# {name: options of refmaml train}; every run has a seed of 0, 1 or 2 in its name
KINDS = {
    "maml": ["--method", "maml"],
    "erm": ["--method", "erm"],
    "fomaml": ["--method", "fomaml"],
    "lvc": ["--method", "maml", "--estimator", "lvc"],
    "dice": ["--method", "maml", "--estimator", "dice"],
    "reptile": ["--method", "reptile", "--inner-steps", "3"],
}


def stopped(folder, stop):
    """The checkpoint that is kept at a stop."""
    return folder / f"step-{stop}.npz"


def run(name, root, stops):
    """Train to each stop that has no checkpoint yet."""
    kind, seed = name.rsplit("-", 1)
    folder = root / name
    for stop in stops:
        if stopped(folder, stop).exists():
            continue
        if (folder / "checkpoint.npz").exists():
            argv = ["--resume"]
        else:
            argv = ["--data", "navigation", *KINDS[kind], "--seed", seed]
        # figure.py evaluates; two tasks are the fewest that refmaml train takes.
        argv = ["train", *argv, "--steps", str(stop), "--eval-tasks", "2", "--out", str(folder)]
        if main(argv):
            raise SystemExit(f"{name} was stopped before step {stop}")
        shutil.copyfile(folder / "checkpoint.npz", stopped(folder, stop))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="KIND-SEED")
    parser.add_argument("--folder", default="runs/navigation", type=Path)
    parser.add_argument("--stops", nargs="+", type=int, default=STOPS)
    given = parser.parse_args()
    for name in given.names or [f"{kind}-{seed}" for kind in KINDS for seed in SEEDS]:
        run(name, given.folder, given.stops)
