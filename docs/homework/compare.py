"""Compares a homework with its solution, line by line:

    python docs/homework/compare.py docs/homework/batch_norm.py

It calls `adjoints` of both files on the same inputs, and says for each array whether it
is exact, equal up to rounding, or how far it is off. The first line that is off is the
one to look at: those after it inherit its error.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

SOLUTIONS = Path(__file__).resolve().parent / "solutions"
# A line has at most some hundred terms here; a missing term is 1e-3 or more.
ROUNDING = 1e-12


def load(path):
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(f"homework_{Path(path).stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compare(mine, right):
    """The verdict on one array, in words, and whether it is right."""
    if mine is ...:
        return "still a hole", False
    mine, right = np.asarray(mine), np.asarray(right)
    if mine.shape != right.shape:
        return f"shape {mine.shape} in place of {right.shape}", False
    if np.array_equal(mine, right):
        return "exact", True
    largest = abs(mine - right).max()
    close = largest <= ROUNDING * max(abs(right).max(), 1e-300)
    return f"{'approximate' if close else 'WRONG'}, largest difference {largest:.1e}", bool(close)


def rows(path, solution):
    """[(name, verdict, right)] of every line; stops where the homework raises."""
    homework, model = load(path), load(solution)
    right = model.adjoints(**model.example())
    try:
        mine = homework.adjoints(**homework.example())
    except Exception as error:
        return [("adjoints", f"raises {type(error).__name__}: {error}", False)]
    return [(name, *compare(mine.get(name, ...), value)) for name, value in right.items()]


def main(path):
    """Print the comparison; return 0 if every line is right."""
    found = rows(path, SOLUTIONS / Path(path).name)
    for name, verdict, _ in found:
        print(f"{name:10s} {verdict}")
    return 0 if all(good for *_, good in found) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
