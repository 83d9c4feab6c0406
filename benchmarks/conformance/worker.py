"""One library in its own process: the doctor checks all its methods.

    python worker.py MODULE FILE          the methods of its LIBRARY
    python worker.py MODULE FILE NAME     its MAML with each update rule inside

Writes the verdicts as JSON. NAME is that of a Library in the module of adapters.
"""

import json
import sys
import warnings
from dataclasses import replace
from importlib import import_module, metadata
from time import perf_counter

from rules import RULES

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


def examine(function, method, framework, seed=0):
    """The doctor's verdict and diagnosis, and the errors by precision and probe.

    If the check raises an error, the verdict is "failed" and its text the diagnosis.
    """
    started = perf_counter()
    try:
        report = rm.check_meta_gradient(function, method, framework=framework, seed=seed)
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


def absent(reason):
    """The result of what a library does not have."""
    return {"verdict": "absent", "diagnosis": reason}


def of_methods(library):
    """(name, result) of each method of a library and of its variants."""
    for method, given in METHODS.items():
        for name, function in library.methods.items():
            if base(name) == method:
                yield name, examine(function, given, library.framework)
        if method in library.absent:
            yield method, absent(library.absent[method])


def of_rules(library):
    """(rule, result) of a library's MAML with each update rule, which is declared."""
    function, method = library.methods["MAML"], METHODS["MAML"]
    for name, rule in RULES.items():
        reason = library.lacks(rule)
        yield (
            name,
            absent(reason)
            if reason
            else examine(function, replace(method, rule=rule), library.framework),
        )


def main(module, path, name=None):
    """Examine a library; the file is written after each result.

    So a crash loses only the results after it.
    """
    warnings.simplefilter("ignore")  # deprecation warnings of libraries
    library = getattr(import_module(f"adapters.{module}"), name or "LIBRARY")
    kind, results = ("rules", of_rules) if name else ("methods", of_methods)
    versions = {name: metadata.version(name) for name in library.distributions}
    found = {"name": library.name, "versions": versions, kind: {}}
    for title, result in results(library):
        found[kind][title] = result
        with open(path, "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
