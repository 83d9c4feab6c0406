"""Programs one after the other, each with a time limit of its own, into one JSON file that is written anew after each.

A section is a program that leaves a JSON file; whatever becomes of it (a crash, a hang, a driver that gives up) stays its own.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from refmaml.bench.gpu.part import NOT_AVAILABLE
from refmaml.bench.gpu.process import limited
from refmaml.errors import DataError
from refmaml.training.files import read_json, write_json

PASSED, FAILED, NOT_HERE, TIMED_OUT, NOT_RUN = (
    "passed",
    "failed",
    "not available",
    "timed out",
    "not run",
)
LEAST, KEPT_LINES = (
    5,
    60,
)  # seconds under which a section is not begun; lines of what it said that are kept
MOST = 1 << 24  # bytes of a section's result: some have half a megabyte


class Section(NamedTuple):
    """name; what it shows; (the file to leave) -> its command; seconds it may take; what the file has to be called."""

    name: str
    title: str
    command: Callable
    limit: float
    file: str = "found.json"


def outcome(status):
    """The word for an exit status."""
    return {None: TIMED_OUT, 0: PASSED, NOT_AVAILABLE: NOT_HERE}.get(status, FAILED)


def run_section(section, limit, environment, tell):
    """{"status", "seconds", "limit", "when", "said", "found"}: found is its file, if it left one, whole or in part."""
    started, when = perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    with TemporaryDirectory() as folder:
        path = Path(folder) / section.file
        status, lines = limited(section.command(path), limit, environment, tell)
        try:
            found = read_json(path, "a section's result", MOST)
        except DataError:
            found = None
    reached = outcome(status)
    if reached in (PASSED, NOT_HERE) and found is None:
        reached, lines = FAILED, [*lines, "it left no result"]
    return {
        "status": reached,
        "title": section.title,
        "exit_status": status,
        "seconds": round(perf_counter() - started, 1),
        "limit": round(limit, 1),
        "when": when,
        "said": lines[-KEPT_LINES:],
        "found": found,
    }


def run_sections(sections, path, record, stamp, seconds=None, environment=None, tell=print):
    """Run them into record["sections"], the file written after each; returns their outcomes {name: status}.

    stamp: added to each section's entry
    seconds: for all together, None for as long as they take; a section for which nothing is left is "not run".
    """
    started, outcomes = perf_counter(), {}
    for section in sections:
        left = (
            section.limit
            if seconds is None
            else min(section.limit, seconds - (perf_counter() - started))
        )
        if left < LEAST:
            outcomes[section.name] = NOT_RUN
            record["sections"].setdefault(section.name, {"status": NOT_RUN, "title": section.title})
            tell(f"---- {section.name}: no time is left for it")
        else:
            tell(f"---- {section.name}: {section.title} (at most {left:.0f} s)")
            record["sections"][section.name] = run_section(section, left, environment, tell) | stamp
            outcomes[section.name] = record["sections"][section.name]["status"]
            tell(
                f"---- {section.name}: {outcomes[section.name]} after {record['sections'][section.name]['seconds']:.0f} s"
            )
        write_json(path, record)
    return outcomes
