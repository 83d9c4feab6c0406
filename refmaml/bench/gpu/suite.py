"""The tests that need a GPU (pytest's mark `gpu`), by pytest, into a JSON file.

    python -m refmaml.bench.gpu.suite FILE.json FOLDER [pytest's options]

Only files that use the mark are collected, as others may need what is not installed on a machine with a GPU. What libraries say of their
own age is no error here. A test that was skipped was not passed: it says why.
"""

import re
import sys
from pathlib import Path

from refmaml.bench.gpu.part import finished

MARK = re.compile(r"\bmark\.gpu\b")


class Outcomes:
    """A plugin that notes what became of each test, in a file that grows: a crash costs no more than the test that crashed."""

    def __init__(self, path):
        self.path, self.tests, self.broken = path, {}, []

    def pytest_runtest_logreport(self, report):
        known = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        known["seconds"] = round(known["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            known |= {"outcome": report.outcome, "said": said(report)}
        if report.when == "teardown":
            finished(self.path, self.record(), None, "it came to no end")

    def record(self):
        outcomes = [test["outcome"] for test in self.tests.values()]
        counts = {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")}
        return {"counts": counts, "tests": self.tests, "broken": self.broken}

    def pytest_collectreport(self, report):
        if report.failed:
            self.broken.append({"file": report.nodeid, "said": said(report)})


def said(report):
    """Why a test was skipped or failed: the reason, or the last lines."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return "\n".join(str(report.longrepr).splitlines()[-12:])


def marked(folder):
    """The test files that use the mark."""
    return sorted(
        str(path) for path in Path(folder).glob("test_*.py") if MARK.search(path.read_text())
    )


def main(path, folder, options=()):
    """Run them; the exit status is 0 where at least one ran, and all passed."""
    import pytest

    plugin, files = Outcomes(path), marked(folder)
    if not files:
        return finished(
            path, {"tests": {}}, None, f"no file in {folder} has a test with the mark gpu"
        )
    pytest.main(
        [*files, "-m", "gpu", "-v", "-W", "default", "-p", "no:cacheprovider", *options],
        plugins=[plugin],
    )
    counts = plugin.record()["counts"]
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    right = bool(counts["passed"]) and not (counts["failed"] or counts["skipped"] or plugin.broken)
    return finished(path, plugin.record(), right)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
