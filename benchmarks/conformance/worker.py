"""One library in its own process: the doctor checks all its methods.

    python worker.py MODULE FILE

Writes the verdicts as JSON.
"""

import json
import sys
import warnings
from importlib import import_module, metadata
from time import perf_counter

import refmaml as rm

# The doctor sets step sizes so that curvature shows.
STEPS = {"inner_lr": 0.1, "inner_steps": 3}
METHODS = {
    "MAML": rm.MAML(**STEPS),
    "first-order MAML": rm.FirstOrderMAML(**STEPS),
    "ANIL": rm.ANIL(**STEPS),
    "Meta-SGD": rm.MetaSGD(**STEPS),
    "Reptile": rm.Reptile(**STEPS),
    "iMAML": rm.IMAML(regularization=2.0),
}


def base(name):
    """The method that a variant such as "iMAML (darts)" is one of."""
    return name.partition(" (")[0]


def examine(library, name, seed=0):
    """The doctor's verdict and diagnosis on a method, errors by precision and probe.

    If the check raises an error, the verdict is "failed" and its text the diagnosis.
    """
    started = perf_counter()
    try:
        report = rm.check_meta_gradient(
            library.methods[name], METHODS[base(name)], framework=library.framework, seed=seed
        )
    except rm.RefmamlError as error:
        return {"verdict": "failed", "diagnosis": " ".join(str(error).split())}
    errors = {}
    for result in report.results:
        errors.setdefault(result.precision, {})[result.case] = max(row.error for row in result.rows)
    return {
        "verdict": report.verdict,
        "diagnosis": report.diagnosis,
        "errors": errors,
        "seconds": round(perf_counter() - started, 1),
    }


def main(module, path):
    """Examine a library's methods; the file is written after each.

    So a crash loses only the methods after it.
    """
    warnings.simplefilter("ignore")  # deprecation warnings of libraries
    library = import_module(f"adapters.{module}").LIBRARY
    found = {
        "name": library.name,
        "versions": {name: metadata.version(name) for name in library.distributions},
        "methods": {},
    }
    for name in METHODS:
        found["methods"] |= {n: examine(library, n) for n in library.methods if base(n) == name}
        if name in library.absent:
            found["methods"][name] = {"verdict": "absent", "diagnosis": library.absent[name]}
        with open(path, "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
