"""A program with a time limit: its output, and what is killed at the limit."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import pytest
from hanging import limit_over_when

from refmaml.bench.gpu import process

HANG = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
print("started", flush=True)
time.sleep(600)
"""
NESTED = f"""
import sys
from refmaml.bench.gpu import process
command = [sys.executable, "-c", {HANG!r}, sys.argv[1]]
process.run_limited(command, 500, on_line=lambda line: print(line, flush=True))
"""


def test_lines_and_exit_status_are_returned():
    heard = []
    code = "import sys; print('a'); print('b', file=sys.stderr); sys.exit(4)"
    status, lines = process.run_limited([sys.executable, "-c", code], 60, on_line=heard.append)
    assert status == 4 and sorted(lines) == ["a", "b"] and heard == lines


@pytest.mark.parametrize("code", [HANG, NESTED], ids=["a program", "a program under a limit"])
def test_at_the_limit_a_program_and_its_child_processes_are_killed(tmp_path, monkeypatch, code):
    heard, pids = [], tmp_path / "pids"
    limit_over_when(monkeypatch, lambda process: heard)
    command = [sys.executable, "-c", code, str(pids)]
    status, lines = process.run_limited(command, 600, on_line=heard.append)
    assert status is None and lines == ["started"]
    assert all(is_gone(pid) for pid in pids.read_text().split())


def test_the_limit_is_in_seconds():
    code = "import time; time.sleep(600)"
    assert process.run_limited([sys.executable, "-c", code], 0.5) == (None, [])


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux ends a process with the one that started it"
)
def test_a_program_under_a_limit_ends_with_the_process_that_started_it(tmp_path):
    command = [sys.executable, "-c", NESTED, str(tmp_path / "pids")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as outer:
        outer.stdout.readline()
        outer.kill()
    program, child = (tmp_path / "pids").read_text().split()
    assert is_gone(program)
    os.kill(int(child), signal.SIGKILL)  # the kernel ends the program, not its children


def is_gone(pid):
    """Whether a killed process ends within a minute; by itself it would run for ten."""
    end = perf_counter() + 60
    while perf_counter() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        sleep(0.02)
    return False


def test_a_missing_program_has_the_status_of_a_shell():
    assert process.run_limited(["/no/such/program"], 30) == (
        127,
        ["/no/such/program: No such file or directory"],
    )
