"""Shared by tests of the command line: small runs, their errors and their files."""

import argparse
import csv

from refmaml.cli import main, options
from refmaml.training import checkpoint

# Other kernels would have to be compiled first.
REFERENCE = ["--kernels", "reference"]
SINUSOIDS = ["--data", "sinusoid", "--hidden", "4", "--tasks", "3", *REFERENCE]
SMALL = [*SINUSOIDS, "--eval-tasks", "5", "--quiet"]


def train(*more):
    return main(["train", *SMALL, *more])


def error_of(capsys, *argv):
    """The line on stderr of a command that fails, without the program's name."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("refmaml: ")
    return err.removeprefix("refmaml: ").rstrip("\n")


def configuration(*argv):
    """What a command line settles on."""
    parser = argparse.ArgumentParser()
    options.add(parser, [name for name in options.KINDS if name != "json"])
    return options.settle(options.typed(parser.parse_args(argv)))


def left_in(folder):
    """A run's final state and curve, but for the seconds."""
    now, config = checkpoint.load(f"{folder}/checkpoint.npz")
    with open(f"{folder}/curve.csv", newline="") as file:
        table = [row[:-1] for row in csv.reader(file)]
    return now.meta.tobytes(), {k: a.tobytes() for k, a in now.state.items()}, table, config
