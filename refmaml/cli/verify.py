"""`refmaml verify`: the derivative ladder as a table of errors and tolerances."""

import json
from pathlib import Path
from time import perf_counter

import numpy as np

from refmaml.cli.kernels import NAMES, kernel_set
from refmaml.cli.report import Growing
from refmaml.errors import DataError, expect
from refmaml.progress import bar
from refmaml.storage.atomic import atomic_write
from refmaml.version import __version__

PASSES = ("y", "loss", "dx", "dz", "dw", "ry", "rdx", "rdz", "rdw")
SCHEMA = 1


def add(subparsers):
    """Register the command."""
    command = subparsers.add_parser(
        "verify",
        help="check every derivative of every layer, loss, net and method",
        description="Climbs the derivative ladder: every layer, loss, net and method "
        "against loops, the "
        "complex step, closed forms and dense algebra. Exit status 1 if any check fails.",
    )
    command.add_argument(
        "--kernels", choices=NAMES, default="auto", help="the kernel set to verify"
    )
    command.add_argument("--json", metavar="FILE", help="write every row here as well")
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

    kernels, rows = kernel_set(arguments.kernels), Rows(arguments.json)
    expect(
        not (arguments.against_reference and kernels.name == "reference"),
        "--against-reference",
        "--kernels other than the reference kernels themselves",
        "--kernels reference",
    )
    print_missing(kernels)
    for section, checks in ladder(kernels, not arguments.against_reference):
        print(f"\n{section}")
        checks = [rows.add(check) for check in progress(section, checks)]
        show = (
            by_check
            if arguments.all or not any(c.rung[0] in "12" and c.quantity in PASSES for c in checks)
            else by_subject
        )
        show(checks)
    rows.end()
    failed = sum(not check.passed for check in rows.checks)
    # A tolerance is 0 where no bit may differ.
    worst = max((c.error / c.tolerance for c in rows.checks if c.tolerance), default=0)
    print(
        f"\n{len(rows.checks) - failed} passed, {failed} failed in {rows.seconds:.0f} s; "
        f"the largest error used {worst:.0%} of its tolerance"
    )
    return 1 if failed else 0


def print_missing(kernels):
    """Print the operations for which a kernel set uses the reference kernels."""
    missing = getattr(kernels, "missing", ())
    if missing:
        print(f"kernels {kernels.name}: on the reference kernels: {', '.join(missing)}")


class Rows:
    """The checks so far, written to a file every few seconds if there is a path."""

    def __init__(self, path):
        self.path, self.checks, self.complete, self.started, self.file = (
            path,
            [],
            False,
            perf_counter(),
            Growing(self.write),
        )

    @property
    def seconds(self):
        return perf_counter() - self.started

    def add(self, check):
        self.checks.append(check)
        self.file.grown()
        return check

    def end(self):
        self.complete = True
        self.write()

    def write(self):
        if self.path:
            write(self.path, self.checks, self.seconds, self.complete)


def progress(section, checks):
    """A progress bar while a section runs, if stderr is a terminal."""
    return bar(checks, desc=section, unit=" checks", leave=False)


def by_check(checks):
    """Print a line for each check."""
    for c in checks:
        print(
            f"  {c.subject:<52} {c.quantity:<22} {c.oracle:<18} {c.error:8.1e} of "
            f"{c.tolerance:7.1e}  {kink(c)}{verdict([c])}"
        )


def by_subject(checks):
    """Print a line for each layer or loss: the errors of its passes, the tolerance."""
    print(f"  {'':<74} {'y':>7} {'dx':>7} {'dw':>7} {'ry':>7} {'rdx':>7} {'rdw':>7} {'within':>8}")
    column = {"loss": "y", "dz": "dx", "rdz": "rdx"}
    for subject in dict.fromkeys(c.subject for c in checks):
        mine = [c for c in checks if c.subject == subject]
        errors = {column.get(c.quantity, c.quantity): c.error for c in mine}
        cells = " ".join(
            f"{errors[q]:7.0e}" if q in errors else f"{'':7}"
            for q in ("y", "dx", "dw", "ry", "rdx", "rdw")
        )
        print(f"  {subject:<74} {cells} {mine[0].tolerance:8.0e}  {kink(mine[0])}{verdict(mine)}")


def kink(check):
    """The distance from the nearest kink, or "" for smooth subjects."""
    return f"(nearest kink {check.margin:.0e}) " if np.isfinite(check.margin) else ""


def verdict(checks):
    """ "ok", or the quantities that failed."""
    bad = [c.quantity for c in checks if not c.passed]
    return f"FAILED: {', '.join(bad)}" if bad else "ok"


def write(path, rows, seconds, complete):
    """Every row as JSON, with versions and the machine.

    passed is None while the ladder is incomplete and nothing has failed.
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
        "passed": (complete or None) if all(c.passed for c in rows) else False,
        "rows": [
            {**{k: json_value(v) for k, v in c._asdict().items()}, "passed": c.passed} for c in rows
        ],
    }
    try:
        with atomic_write(Path(path)) as file:  # atomic: survives a kill
            file.write((json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise DataError(
            f"--json: expected a file that can be written, got {path}: {error.strerror}"
        ) from None


def json_value(value):
    """A value that JSON can hold: text, a finite float, or null for infinity."""
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None
