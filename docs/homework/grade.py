"""Grades the six homeworks in a folder, by refmaml's own checks:

    python docs/homework/grade.py docs/homework [--junit FOLDER]

With --junit it writes NAME.xml for each, which test servers and learning platforms
read. The exit status is the number of homeworks that are not right.
"""

import argparse
import sys
from pathlib import Path

from refmaml.cli import main as refmaml

PASSES = ["--r-forward", "r_forward", "--r-backward", "r_backward"]
# {file: (function, command, further arguments)}
HOMEWORKS = {
    "linear": ("backward", ["check", "layer"], ["--like", "Linear(3, 2)"]),
    "cross_entropy": ("fn", ["check", "gradient"], []),
    "batch_norm": ("backward", ["check", "layer"], ["--like", "BatchNorm2d(3)", *PASSES]),
    "convolution": ("backward", ["check", "layer"], ["--like", "Conv2d(2, 3, 3)", *PASSES]),
    "maml": (
        "maml",
        ["doctor"],
        ["--framework", "numpy", "--method", "maml", "--inner-lr", "0.1", "--inner-steps", "3"],
    ),
    "conjugate_gradients": ("product", ["check", "solve"], []),
}


def grade(name, folder, junit=None):
    """The exit status of one check: 0 right, 1 wrong, 2 an error, 3 inconclusive."""
    function, command, further = HOMEWORKS[name]
    reports = ["--junit", str(Path(junit) / f"{name}.xml")] if junit else []
    return refmaml([*command, f"{Path(folder) / name}.py:{function}", *further, *reports])


def main(arguments):
    """Grade all; print a table; return how many are not right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--junit", metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.junit:
        Path(options.junit).mkdir(parents=True, exist_ok=True)
    found = {name: grade(name, options.folder, options.junit) for name in HOMEWORKS}
    print()
    for name, status in found.items():
        print(f"{name:20s} {'right' if status == 0 else 'not right'}")
    return sum(status != 0 for status in found.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
