"""Adam, momentum and RMSprop in the inner loops of other libraries, beside refmaml's.

    python benchmarks/update_rules.py --out benchmarks/update_rules.json

The error of a library is max|difference| / max|gradient| between its meta-gradient in
float64 and refmaml's with the same rule, which agrees with the complex step to 1e-14.
"""

import argparse
import sys
from importlib import metadata
from math import isfinite, isnan
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "conformance"))

from rules import COLUMNS, RULES

import refmaml as rm
from refmaml.cli import report
from refmaml.doctor.cases import Case
from refmaml.oracles import cases
from refmaml.training import files

MODULES = ("torch", "jax", "higher", "torchopt", "optax")
INNER_LR, STEPS = 0.05, 5
SILENT_RULES = ("Adam()", "Adam(eps_root=1e-08)", "RMSprop(alpha=0.9, eps=0.01)")


def case(silent=False):
    """(net, theta, batch) without kinks; silent: one input is 0 in all examples."""
    layers = [rm.Linear(4, 6), rm.Tanh(), rm.Linear(6, 3)]
    net, rng = rm.Sequential(layers, rm.CrossEntropy(), (4,)), np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2, 6, 4)), rng.integers(0, 3, (2, 2, 6))
    x[..., :1] *= not silent
    return net, cases.start(net, rng), rm.Batch(x[0], y[0], x[1], y[1])


# ---- the table -----------------------------------------------------------------------


def error_of(library, rule, silent=False):
    """A library's error; "NaN" where its gradient is; None if it lacks the rule."""
    from adapters.library import answer

    found, rule = COLUMNS[library].library, RULES[rule]
    if found.lacks(rule):
        return None
    net, theta, batch = case(silent)
    method = rm.MAML(INNER_LR, STEPS, rule=rule)
    value = answer(found.methods["MAML"], Case("", net, method, theta, batch), found.framework)
    truth = method.meta_gradient(net, theta, batch).grad
    error = float(np.abs(value - truth).max() / np.abs(truth).max())
    return "NaN" if isnan(error) else error


def measure():
    """The rows: each rule's text, and the error of each library."""
    wanted = [(rule, False) for rule in RULES] + [(rule, True) for rule in SILENT_RULES]
    return [
        {
            "case": rule,
            "silent": silent,
            "errors": {library: error_of(library, rule, silent) for library in COLUMNS},
        }
        for rule, silent in wanted
    ]


def cell(error):
    """An error as the table has it; one beyond rounding is bold."""
    if error is None:
        return "-"
    if not isinstance(error, float) or not isfinite(error):
        return f"**{error}**"
    return f"{error:.0e}" if error < 1e-11 else f"**{error:.1e}**"


def lines(record):
    """The table as lines of markdown."""
    names = list(record["rows"][0]["errors"])
    rows = (
        [f"`{row['case']}`" + ", silent input" * row["silent"], *map(cell, row["errors"].values())]
        for row in record["rows"]
    )
    head = [f"| rule | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True, help="where the result goes")
    given = parser.parse_args(argv)
    record = {"schema": 1, "rows": measure(), **report.circumstances()}
    record["versions"] |= {name: metadata.version(name) for name in MODULES}
    files.write_json(given.out, record)
    print("\n".join(lines(record)))


if __name__ == "__main__":
    main()
