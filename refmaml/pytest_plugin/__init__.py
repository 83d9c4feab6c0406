"""The pytest plugin: the fixture `refmaml_check` is check_meta_gradient as a test.

    def test_my_meta_gradient_is_right(refmaml_check):
        refmaml_check(my_function, rm.MAML(inner_lr=0.1, inner_steps=5),
        framework="torch")

Its arguments are those of refmaml.check_meta_gradient. `refmaml_check_gradient`,
`refmaml_check_hvp`, `refmaml_check_layer`, `refmaml_check_solve`,
`refmaml_check_hypergradient` and `refmaml_check_rl_meta_gradient` are the checks of
single parts in the same way. Each returns the report where the verdict is "right",
fails the test with the diagnosis where it is "wrong", and skips it where it is
"inconclusive". --refmaml-json FILE collects all reports.

pytest loads this file at every start, so that it is installed under a name of its own,
`pytest_refmaml` (see setup.py): to import a module of the package is to import NumPy
and all of refmaml. The package is imported when the fixture is used."""

import json
import os

import pytest

FIRST_LINE = 79  # columns of a failure's first line that pytest's own summary shows
REPORTS = pytest.StashKey()


def pytest_addoption(parser):
    """--refmaml-json FILE."""
    parser.getgroup("refmaml").addoption(
        "--refmaml-json", metavar="FILE", default=None, help="write every refmaml report to FILE"
    )


def pytest_configure(config):
    """One Collector for the session.

    Raises UsageError where the file of --refmaml-json could not be written.
    """
    path = config.getoption("--refmaml-json", default=None)
    if path is not None and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise pytest.UsageError(
            f"--refmaml-json: expected a file in a folder that exists, got {path}"
        )
    config.pluginmanager.register(Collector(config), "refmaml_collector")


@pytest.fixture
def refmaml_check(request, record_property):
    """check_meta_gradient as an assertion."""

    def check(fn, method, **options):
        from refmaml.doctor import check_meta_gradient

        report = check_meta_gradient(fn, method, **options)
        return judge(request, record_property, report, "meta-gradient")

    return check


def part_fixture(part):
    """The fixture `refmaml_check_<part>`: refmaml.check_<part> as an assertion."""

    @pytest.fixture(name=f"refmaml_check_{part}")
    def fixture(request, record_property):
        def check(*arguments, **options):
            from refmaml import checks

            report = getattr(checks, f"check_{part}")(*arguments, **options)
            return judge(request, record_property, report, part)

        return check

    fixture.__doc__ = f"refmaml.check_{part} as an assertion."
    return fixture


refmaml_check_gradient = part_fixture("gradient")
refmaml_check_hvp = part_fixture("hvp")
refmaml_check_layer = part_fixture("layer")
refmaml_check_solve = part_fixture("solve")
refmaml_check_hypergradient = part_fixture("hypergradient")
refmaml_check_rl_meta_gradient = part_fixture("rl_meta_gradient")


def judge(request, record_property, report, part):
    """Record a report and return it if right; otherwise fail or skip the test."""
    record_property("refmaml_verdict", report.verdict)
    record_property("refmaml_diagnosis", report.diagnosis)
    request.node.stash.setdefault(REPORTS, []).append(
        {"test": request.node.nodeid, **json.loads(report.to_json())}
    )
    line = first_line(report.verdict, report.diagnosis, part)
    if report.verdict == "inconclusive":
        pytest.skip(line)
    if not report.ok:
        pytest.fail(f"{line}\n{report}", pytrace=False)
    return report


def first_line(verdict, diagnosis, part="meta-gradient"):
    """The verdict and the diagnosis, shortened to FIRST_LINE columns."""
    text = f"{part} {verdict}: {diagnosis}"
    return text if len(text) <= FIRST_LINE else f"{text[: FIRST_LINE - 3].rstrip()}..."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Attach the reports to pytest's own, which also pytest-xdist's workers send."""
    report = yield
    if report.when == "call":
        report.refmaml = item.stash.get(REPORTS, [])
    return report


class Collector:
    """All reports of a session: a summary line for each that is not right, and the file
    of --refmaml-json."""

    def __init__(self, config):
        self.config, self.records = config, []

    def pytest_runtest_logreport(self, report):
        """Collect the reports of one test."""
        self.records += getattr(report, "refmaml", [])

    def pytest_terminal_summary(self, terminalreporter):
        """Print the summary."""
        bad = [r for r in self.records if not r["ok"]]
        if bad:
            terminalreporter.section("refmaml")
        for r in bad:
            line = first_line(r["verdict"], r["diagnosis"], r.get("check", "meta-gradient"))
            terminalreporter.line(f"{r['test']}: {line}")

    def pytest_sessionfinish(self):
        """Write the file, in the session and not in pytest-xdist's workers."""
        path = self.config.getoption("--refmaml-json", default=None)
        if path is not None and not hasattr(self.config, "workerinput"):
            with open(path, "w") as file:
                json.dump(self.records, file, indent=1)
