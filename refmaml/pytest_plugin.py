"""A pytest plugin: the fixture `refmaml_check`, which fails a test whose meta-gradient is wrong and says what is wrong with it.

    def test_my_meta_gradient_is_right(refmaml_check):
        refmaml_check(my_function, rm.MAML(inner_lr=0.1, inner_steps=5), framework="torch")

Its arguments are those of refmaml.check_meta_gradient. It returns the Report where the verdict is "right", fails the test where it is "wrong" and skips
it where it is "inconclusive". --refmaml-json FILE collects all reports.
"""
import json

import pytest

FIRST_LINE = 79                  # pytest's own summary shows no more of a failure than its first line, cut to the terminal's width


def pytest_addoption(parser):
    """--refmaml-json FILE."""
    parser.getgroup("refmaml").addoption("--refmaml-json", metavar="FILE", default=None, help="write every refmaml report there")


def pytest_configure(config):
    """Where reports are kept until the session ends."""
    config.stash[REPORTS] = []


REPORTS = pytest.StashKey()


@pytest.fixture
def refmaml_check(request, record_property):
    """check_meta_gradient as an assertion."""
    def check(fn, method, **options):
        from refmaml.doctor import check_meta_gradient
        report = check_meta_gradient(fn, method, **options)
        record_property("refmaml_verdict", report.verdict)
        record_property("refmaml_diagnosis", report.diagnosis)
        request.config.stash[REPORTS].append((request.node.nodeid, report))
        if report.verdict == "inconclusive":
            pytest.skip(first_line(report))
        if not report.ok:
            pytest.fail(f"{first_line(report)}\n{report}", pytrace=False)
        return report
    return check


def first_line(report):
    """The verdict and as much of the diagnosis as fits on a line."""
    text = f"meta-gradient {report.verdict}: {report.diagnosis}"
    return text if len(text) <= FIRST_LINE else f"{text[:FIRST_LINE - 3].rstrip()}..."


def pytest_terminal_summary(terminalreporter, config):
    """A line for each report that is not right."""
    bad = [(node, report) for node, report in config.stash.get(REPORTS, []) if not report.ok]
    if bad:
        terminalreporter.section("refmaml")
    for node, report in bad:
        terminalreporter.line(f"{node}: {first_line(report)}")


def pytest_sessionfinish(session):
    """Write --refmaml-json."""
    path = session.config.getoption("--refmaml-json", default=None)
    if path is not None and not hasattr(session.config, "workerinput"):
        from refmaml.doctor.renderers import record
        found = [{"test": node, **record(report)} for node, report in session.config.stash.get(REPORTS, [])]
        with open(path, "w") as file:
            json.dump(found, file, indent=1)
