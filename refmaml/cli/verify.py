"""`refmaml verify`: checks all derivatives; prints errors beside the tolerances of
theory.
"""

import json
from pathlib import Path
from time import perf_counter

import numpy as np

from refmaml.cli.kernels import NAMES, kernel_set
from refmaml.cli.outputs import check_outputs
from refmaml.cli.report import PeriodicFile
from refmaml.errors import DataError, expect
from refmaml.progress import bar
from refmaml.storage.atomic import atomic_write
from refmaml.version import __version__

# The quantities of a layer or loss, which share a line of the table.
PASSES = ("y", "loss", "dx", "dz", "dw", "ry", "rdx", "rdz", "rdw")
SCHEMA = 1


def add(subparsers):
    """Register the command."""
    command = subparsers.add_parser(
        "verify",
        help="check every derivative of every layer, loss, net and method",
        description="Climbs the derivative ladder: every layer, loss, net and method "
        "against loops, the complex step, closed forms and dense algebra. Exit status 1 if "
        "any check fails.",
    )
    command.add_argument(
        "--kernels", choices=NAMES, default="auto", help="the kernel set to verify"
    )
    command.add_argument("--json", metavar="FILE", help="also write every check to this file")
    command.add_argument(
        "--against-reference",
        action="store_true",
        help="only rung 7: these kernels against the reference kernels",
    )
    command.add_argument(
        "--all", action="store_true", help="a line for every check, not for every layer"
    )
    command.set_defaults(func=run)


def run(arguments):
    """Print the table; returns 0 if every check passed, else 1."""
    from refmaml.oracles.ladder import ladder

    check_outputs({"--json": arguments.json})
    kernels, results = kernel_set(arguments.kernels), Results(arguments.json)
    expect(
        not (arguments.against_reference and kernels.name == "reference"),
        "--against-reference",
        "--kernels other than the reference kernels themselves",
        "--kernels reference",
    )
    print_missing(kernels)
    for section, checks in ladder(kernels, not arguments.against_reference):
        print(f"\n{section}")
        checks = [results.add(check) for check in bar_over(section, checks)]
        passes = any(c.rung[0] in "12" and c.quantity in PASSES for c in checks)
        if passes and not arguments.all:
            print_subjects(checks)
        else:
            print_checks(checks)
    results.end()
    failed = sum(not check.passed for check in results.checks)
    # A tolerance is 0 where no bit may differ.
    worst = max((c.error / c.tolerance for c in results.checks if c.tolerance), default=0)
    print(
        f"\n{len(results.checks) - failed} passed, {failed} failed in {results.seconds:.0f} s; "
        f"the largest error used {worst:.0%} of its tolerance"
    )
    return 1 if failed else 0


def print_missing(kernels):
    """Print the operations for which a kernel set uses the reference kernels."""
    missing = kernels.missing
    if missing:
        print(f"kernels {kernels.name}: on the reference kernels: {', '.join(missing)}")


class Results:
    """All checks so far; written to `path` every few seconds unless that is None."""

    def __init__(self, path):
        self.path, self.checks, self.complete = path, [], False
        self.started, self.file = perf_counter(), PeriodicFile(self.write)

    @property
    def seconds(self):
        return perf_counter() - self.started

    def add(self, check):
        self.checks.append(check)
        self.file.changed()
        return check

    def end(self):
        self.complete = True
        self.write()

    def write(self):
        if self.path:
            write(self.path, self.checks, self.seconds, self.complete)


def bar_over(section, checks):
    """The checks, with a progress bar."""
    return bar(checks, desc=section, unit=" checks", leave=False)


def print_checks(checks):
    """Print a line for each check."""
    for c in checks:
        print(
            f"  {c.subject:<52} {c.quantity:<22} {c.oracle:<18} "
            f"{c.error:8.1e} of {c.tolerance:7.1e}  {kink(c)}{verdict([c])}"
        )


def print_subjects(checks):
    """Print a line for each layer or loss: the error of each pass, the tolerance."""
    print(f"  {'':<74} {'y':>7} {'dx':>7} {'dw':>7} {'ry':>7} {'rdx':>7} {'rdw':>7} {'within':>8}")
    column = {"loss": "y", "dz": "dx", "rdz": "rdx"}
    for subject in dict.fromkeys(c.subject for c in checks):
        own = [c for c in checks if c.subject == subject]
        errors = {column.get(c.quantity, c.quantity): c.error for c in own}
        cells = " ".join(
            f"{errors[q]:7.0e}" if q in errors else f"{'':7}"
            for q in ("y", "dx", "dw", "ry", "rdx", "rdw")
        )
        print(f"  {subject:<74} {cells} {own[0].tolerance:8.0e}  {kink(own[0])}{verdict(own)}")


def kink(check):
    """The distance of the nearest kink, if there is one."""
    return f"(nearest kink {check.margin:.0e}) " if np.isfinite(check.margin) else ""


def verdict(checks):
    """ "ok", or the checks that failed."""
    bad = [c.quantity for c in checks if not c.passed]
    return f"FAILED: {', '.join(bad)}" if bad else "ok"


def write(path, checks, seconds, complete):
    """Write every check as JSON, with versions and the machine.

    "passed" is null while nothing has failed and more checks will come.
    """
    import platform

    record = {
        "schema": SCHEMA,
        "refmaml": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seconds": round(seconds, 1),
        "complete": complete,
        "passed": (complete or None) if all(c.passed for c in checks) else False,
        "rows": [
            {**{k: json_value(v) for k, v in c._asdict().items()}, "passed": c.passed}
            for c in checks
        ],
    }
    try:
        with atomic_write(Path(path)) as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(
            f"--json: expected a file that can be written, got {path}: {error.strerror}"
        ) from None


def json_value(value):
    """A value that JSON has: text, a finite float, or null for infinity."""
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None
