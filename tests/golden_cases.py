"""The golden problems and how tests read a folder of golden vectors."""

from pathlib import Path

import numpy as np

from refmaml.golden.problems import batch_of, problems, terms
from refmaml.oracles import complex_step
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.quadratic import Quadratic

ROOT = Path(__file__).parent.parent
KNOWN = problems()
FILES = [(name, key) for name, problem in KNOWN.items() for key in problem.methods]
NETS = [name for name, problem in KNOWN.items() if not isinstance(problem.net, Quadratic)]
STEPWISE = tolerance(float, 4)  # roundings of one step of a recursion, at most


def load(folder, name):
    with np.load(Path(folder) / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def case(folder, name, key):
    """(net, method, batch, the file's arrays, a relative tolerance)."""
    net, method = KNOWN[name].net, KNOWN[name].methods[key]
    batch = batch_of(load(folder, name))
    return (
        net,
        method,
        batch,
        load(folder, f"{name}.{key}"),
        tolerance(float, terms(net, method, batch)),
    )


def close(value, reference, limit=STEPWISE):
    assert relative_error(value, reference) <= limit


def along(function, at, direction):
    """The derivative of values (T,) or (T, P) along a direction (T, P)."""
    return complex_step.derivative(function(complex_step.shifted(at, direction)))
