"""Programs run one after the other, each with a time limit, into one JSON file.

A section is a program that writes a JSON file. A crash, a hang or a broken driver
affects only its own section. The common file is rewritten after each section.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from refmaml.bench.gpu.process import run_limited
from refmaml.bench.gpu.result_file import NOT_AVAILABLE
from refmaml.errors import DataError
from refmaml.training.files import read_json, write_json

PASSED, FAILED, TIMED_OUT = "passed", "failed", "timed out"
UNAVAILABLE, NOT_RUN = "not available", "not run"
MIN_SECONDS = 5  # a section with less time is not started
MAX_LINES = 60  # lines of a section's output that are kept
MAX_BYTES = 1 << 24  # of a section's result; some have half a megabyte


class Section(NamedTuple):
    """A program of `make gpu`.

    title    what it checks or measures
    command  (path of the file to write) -> its command
    limit    seconds that it may take
    file     the name that its file must have
    """

    name: str
    title: str
    command: Callable
    limit: float
    file: str = "found.json"


def outcome(status):
    """The word for an exit status."""
    return {None: TIMED_OUT, 0: PASSED, NOT_AVAILABLE: UNAVAILABLE}.get(status, FAILED)


def run_section(section, limit, environment, log):
    """Run a section; returns its entry in the common file.

    "found" is the content of the section's file, complete or not, or None; "said" its
    last lines of output.
    """
    started, when = perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    with TemporaryDirectory() as folder:
        path = Path(folder) / section.file
        status, lines = run_limited(section.command(path), limit, environment, log)
        try:
            result = read_json(path, "a section's result", MAX_BYTES)
        except DataError:
            result = None
    word = outcome(status)
    if word in (PASSED, UNAVAILABLE) and result is None:
        word, lines = FAILED, [*lines, "it left no result"]
    return {
        "status": word,
        "title": section.title,
        "exit_status": status,
        "seconds": round(perf_counter() - started, 1),
        "limit": round(limit, 1),
        "when": when,
        "said": lines[-MAX_LINES:],
        "found": result,
    }


def run_sections(sections, path, record, stamp, seconds=None, environment=None, log=print):
    """Run sections into record["sections"]; returns {name: outcome}.

    path     the file, rewritten after each section
    stamp    added to each section's entry
    seconds  for all together, None: no limit. A section without time left is "not run";
             the result of an earlier call stays
    """
    started, outcomes = perf_counter(), {}
    for section in sections:
        name, left = section.name, section.limit
        if seconds is not None:
            left = min(left, seconds - (perf_counter() - started))
        if left < MIN_SECONDS:
            outcomes[name] = NOT_RUN
            record["sections"].setdefault(name, {"status": NOT_RUN, "title": section.title})
            log(f"---- {name}: no time is left for it")
        else:
            log(f"---- {name}: {section.title} (at most {left:.0f} s)")
            entry = run_section(section, left, environment, log) | stamp
            record["sections"][name], outcomes[name] = entry, entry["status"]
            log(f"---- {name}: {entry['status']} after {entry['seconds']:.0f} s")
        write_json(path, record)
    return outcomes
