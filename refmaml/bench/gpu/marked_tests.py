"""The tests that need a GPU (pytest's mark `gpu`), run by pytest, into a JSON file.

    python -m refmaml.bench.gpu.marked_tests FILE.json FOLDER [pytest's options]

Only files that use the mark are collected: others may need packages that a machine with
a GPU lacks. Deprecation warnings of libraries are no errors here. A skipped test counts
as not passed; the file has its reason.
"""

import re
import sys
from pathlib import Path

from refmaml.bench.gpu.result_file import write_result

MARK = re.compile(r"\bmark\.gpu\b")


class Outcomes:
    """A pytest plugin that writes the outcome of each test to the file when it ends.

    So a crash loses only the test that crashed.
    """

    def __init__(self, path):
        self.path, self.tests, self.broken = path, {}, []

    def pytest_runtest_logreport(self, report):
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 2)
        if report.outcome != "passed":
            test |= {"outcome": report.outcome, "said": reason(report)}
        if report.when == "teardown":
            write_result(self.path, self.record(), None, "it came to no end")

    def record(self):
        outcomes = [test["outcome"] for test in self.tests.values()]
        counts = {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")}
        return {"counts": counts, "tests": self.tests, "broken": self.broken}

    def pytest_collectreport(self, report):
        if report.failed:
            self.broken.append({"file": report.nodeid, "said": reason(report)})


def reason(report):
    """Why a test was skipped, or the last lines of its failure."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return "\n".join(str(report.longrepr).splitlines()[-12:])


def marked_files(folder):
    """The test files that use the mark."""
    paths = Path(folder).glob("test_*.py")
    return sorted(str(path) for path in paths if MARK.search(path.read_text()))


def main(path, folder, options=()):
    """Run them; exit status 0 if at least one ran, and all passed."""
    import pytest

    plugin, files = Outcomes(path), marked_files(folder)
    if not files:
        missing = f"no file in {folder} has a test with the mark gpu"
        return write_result(path, {"tests": {}}, None, missing)
    pytest.main(
        [*files, "-m", "gpu", "-v", "-W", "default", "-p", "no:cacheprovider", *options],
        plugins=[plugin],
    )
    counts = plugin.record()["counts"]
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    passed = bool(counts["passed"]) and not (counts["failed"] or counts["skipped"] or plugin.broken)
    return write_result(path, plugin.record(), passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
