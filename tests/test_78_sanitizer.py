"""The section of compute-sanitizer in `make gpu`, with a stand-in for the tool."""

import json
import os
import sys

import pytest
from clock import Clock
from gpu_stand_in import StandIn, named_cuda

from refmaml import kernels
from refmaml.bench.gpu import result_file, sanitizer, sanitizer_program
from refmaml.bench.kernel_table import reference_functions

pytestmark = pytest.mark.slow


def read(path):
    return json.loads(path.read_text())


SANITIZER = """#!{python}
import sys
if "--version" in sys.argv:
    print("a stand-in"); sys.exit(0)
tool, program = sys.argv[2], sys.argv[sys.argv.index("--print-limit") + 2:]
finds, clean = {finds!r}, {clean!r}
found = (tool in finds if program[-1] == tool else tool not in clean)
print("========= COMPUTE-SANITIZER")
if "no end" not in (finds, clean):
    if tool == "racecheck" and found:
        print("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)")
    else:
        print("========= ERROR SUMMARY: " + ("10 errors" if found else "0 errors"))
sys.exit({status} if found else {otherwise})
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Installs a stand-in for compute-sanitizer.

    finds      the tools that find their planted mistake
    clean      the tools that find no mistake in the kernels
    status     exit status after a mistake; otherwise: exit status without one
    """

    def install(finds=sanitizer.TOOLS, clean=sanitizer.TOOLS, status=1, otherwise=0):
        path = tmp_path / "compute-sanitizer"
        path.write_text(
            SANITIZER.format(
                python=sys.executable, finds=finds, clean=clean, status=status, otherwise=otherwise
            )
        )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


PROGRAM = (sys.executable, "-c", "pass")


@pytest.mark.parametrize(
    ("installed", "status", "verdicts"),
    [
        ({}, 0, [True, True, True]),
        ({"clean": ("memcheck", "initcheck")}, 1, [True, False, True]),
        ({"clean": ("racecheck",), "status": 0}, 1, [False, True, False]),
        ({"otherwise": 1}, result_file.NOT_AVAILABLE, [None, None, None]),
        ({"finds": "no end"}, result_file.NOT_AVAILABLE, [None, None, None]),
        ({"finds": ("memcheck",)}, 0, [True, None, None]),
        ({"finds": ()}, result_file.NOT_AVAILABLE, [None, None, None]),
    ],
    ids=[
        "all clean",
        "a race",
        "a mistake that leaves the exit status 0",
        "a program that fails under the tools",
        "no summary",
        "only memcheck works",
        "no tool works",
    ],
)
def test_a_tool_gives_a_verdict_only_if_it_finds_the_planted_mistake(
    tmp_path, tool, installed, status, verdicts
):
    tool(**installed)
    path = tmp_path / "found.json"
    assert sanitizer.main(path, program=PROGRAM) == status
    assert [row["passed"] for row in read(path)["tools"]] == verdicts


def test_hanging_tools_do_not_exceed_the_limit_of_all(tmp_path, tool, monkeypatch):
    """The stand-in hangs whenever it runs a program: the clock goes on to its limit."""
    tool()
    clock, path = Clock(), tmp_path / "found.json"

    def hang(command, seconds):
        if "--tool" not in command:
            return 0, []
        clock.sleep(seconds)
        return None, []

    monkeypatch.setattr(sanitizer, "perf_counter", clock)
    monkeypatch.setattr(sanitizer, "run_limited", hang)
    assert sanitizer.main(path, program=PROGRAM, seconds=3) == result_file.NOT_AVAILABLE
    assert clock.now == 3 + 1 + 1  # the first tool takes the whole time, the others a second each
    assert all("no end within its limit" in row["reason"] for row in read(path)["tools"])


def test_without_compute_sanitizer_the_result_reports_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "find_sanitizer", lambda: None)
    assert sanitizer.main(tmp_path / "found.json") == result_file.NOT_AVAILABLE
    assert read(tmp_path / "found.json")["reason"] == "compute-sanitizer is not installed"


def test_a_program_that_raises_is_a_failure_of_the_section(tmp_path, tool):
    tool()
    assert (
        sanitizer.main(
            tmp_path / "found.json", program=(sys.executable, "-c", "raise ValueError('no')")
        )
        == 1
    )
    assert "ValueError: no" in read(tmp_path / "found.json")["said"]


def test_the_small_program_runs_every_kernel(capsys):
    called = set()

    def recording(name, function):
        def recorded(*arguments):
            called.add(name)
            function(*arguments)

        return recorded

    right = kernels.KernelSet("cuda", reference_functions())
    gpu = StandIn(
        lambda version: named_cuda(
            right, **{name: recording(name, f) for name, f in right.functions.items()}
        )
    )
    sanitizer_program.run_everything(gpu, sanitizer_program.small_nets())
    assert (
        called == set(right.functions)
        and "kernels ran, and a meta-gradient" in capsys.readouterr().out
    )
    assert set(sanitizer_program.PLANTED) == set(sanitizer.TOOLS)
