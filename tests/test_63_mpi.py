"""Ranks that mpiexec starts: equal bits, output of one rank, an end after failures."""

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import SINUSOIDS

from refmaml.training import checkpoint

# The mpiexec beside this Python (from the mpich wheel), or else one on the PATH.
MPIEXEC = shutil.which(
    "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("mpi4py") is None, reason="mpi4py is not installed: pip install 'refmaml[mpi]'"
    ),
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: pip install 'refmaml[mpi]'"),
]

# Three tasks: two ranks have one and two, and one of four ranks has none.
SMALL = [*SINUSOIDS, "--eval-tasks", "7"]
LONG = [*SMALL, "--steps", "1000000", "--save-every", "0.2"]
LIMIT = 600  # seconds; only a deadlock takes as long
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # this refmaml, not an installed one
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    return tmp_path


def command(ranks, *argv, module=("-m", "refmaml")):
    start = (
        [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py"]
        if ranks > 1
        else [sys.executable]
    )
    return [*start, *module, *argv]


def run(ranks, *argv, **more):
    """A finished process. TimeoutExpired where ranks wait for each other for ever."""
    return subprocess.run(
        command(ranks, *argv, **more), capture_output=True, text=True, timeout=LIMIT, check=False
    )


def start(ranks, *argv, **more):
    return subprocess.Popen(
        command(ranks, *argv, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_in(path):
    """A run's final state and curve, without the seconds."""
    now, config = checkpoint.load(f"{path}/checkpoint.npz")
    return (
        now.meta.tobytes(),
        {k: a.tobytes() for k, a in now.state.items()},
        [(r.step, r.loss, r.grad_norm) for r in now.rows],
        config,
    )


def wait_for(path):
    """Wait until a run has saved a step after its start."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if path.exists() and checkpoint.load(path)[0].step > 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"no step was saved in {LIMIT} s")


def test_one_two_and_four_ranks_leave_the_same_bits_and_one_result(folder):
    printed = {}
    for ranks in (1, 2, 4):
        done = run(ranks, "train", *SMALL, "--steps", "12", "--out", f"r{ranks}")
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(f"r{ranks}")) == [
            "checkpoint.npz",
            "config.json",
            "curve.csv",
            "curve.png",
            "result.json",
        ]
        assert done.stderr.count("step 1/12") == 1
        printed[ranks] = re.sub(r"in \d+ s; see r\d", "", done.stdout)
    assert (
        len(set(printed.values())) == 1
        and printed[1].count("\n") == 1
        and " held-out tasks" in printed[1]
    )
    assert left_in("r1") == left_in("r2") == left_in("r4")
    assert (
        run(3, "evaluate", "r4/checkpoint.npz", "--tasks", "7").stdout.split(" after ")[0].strip()
        in printed[1]
    )


def test_an_error_of_all_ranks_is_printed_once(folder):
    lasting = ["--optimizer", "sgd", "--lr", "3e38", "--loss-scale", "sum", "--inner-lr", "1e-6"]
    for argv, line in (
        (["--lr", "-1"], "--lr: expected a finite number > 0, got '-1'"),
        (["--inner-lr", "1e30", "--steps", "3"], "meta-step 1: "),
        ([*lasting, "--steps", "3", "--out", "far"], "meta-step 1: the update: "),
        (["--resume", "--out", "x"], "x/checkpoint.npz: expected"),
    ):
        done = run(2, "train", *SMALL, "--quiet", *argv)
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith(f"refmaml: {line}") and done.stderr.count("\n") == 1


def test_ctrl_c_saves_and_the_printed_command_resumes_to_the_same_bits(folder):
    with start(2, "train", *LONG, "--out", "run") as going:
        wait_for(folder / "run" / "checkpoint.npz")
        os.killpg(going.pid, signal.SIGINT)  # as a terminal does
        err = going.communicate(timeout=LIMIT)[1]
    assert going.returncode == 130
    line = next(line for line in err.splitlines() if line.startswith("refmaml:"))
    assert (
        line == "refmaml: interrupted; saved; to go on: mpiexec -n 2 python -m mpi4py -m refmaml "
        "train --resume --out run"
    )
    assert err.count("refmaml:") == 1 and "BAD TERMINATION" not in err
    step = checkpoint.load("run/checkpoint.npz")[0].step
    argv = ["--steps", str(step + 3), "--quiet"]
    assert run(3, "train", "--resume", "--out", "run", *argv).returncode == 0
    assert run(1, "train", *SMALL, *argv, "--out", "whole").returncode == 0
    assert left_in("run")[:3] == left_in("whole")[:3]


ACCIDENT = """
import os, signal, sys
from mpi4py import MPI
from refmaml.cli import main
from refmaml.errors import DataError
from refmaml.training import trainer
advance = trainer.advance

def fail(recipe, now):
    if now.step == 5 and recipe.ranks.rank == {rank}:
        {accident}
    return advance(recipe, now)
trainer.advance = fail
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_signal_to_one_rank_stops_all_after_the_same_step(folder):
    (folder / "accident.py").write_text(
        ACCIDENT.format(rank=1, accident="os.kill(os.getpid(), signal.SIGTERM)")
    )
    done = run(
        2, "train", *SMALL, "--steps", "1000000", "--quiet", "--out", "run", module=["accident.py"]
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert (
        done.stderr.startswith("refmaml: interrupted; saved; to go on: mpiexec -n 2 ")
        and done.stderr.count("\n") == 1
    )
    assert checkpoint.load("run/checkpoint.npz")[0].step == 6


LATE = """
import os, signal, sys
from mpi4py import MPI
from refmaml.cli import main
from refmaml.training import evaluation
query_metric = evaluation.query_metric

def stopped(*arguments):
    if MPI.COMM_WORLD.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return query_metric(*arguments)
evaluation.query_metric = stopped
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_signal_during_the_evaluation_stops_all_ranks_in_order(folder):
    (folder / "late.py").write_text(LATE)
    done = run(2, "train", *SMALL, "--steps", "3", "--quiet", "--out", "run", module=["late.py"])
    assert done.returncode == 128 + signal.SIGTERM
    assert (
        done.stderr.startswith("refmaml: interrupted; saved; to go on: mpiexec -n 2 ")
        and done.stderr.count("\n") == 1
    )
    assert (
        checkpoint.load("run/checkpoint.npz")[0].step == 3
        and not (folder / "run" / "result.json").exists()
    )


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "accident, line",
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank {rank} of 2 (process "),
        (
            "raise ZeroDivisionError('oh')",
            "rank {rank} of 2: ZeroDivisionError: oh; this ends the run",
        ),
        ("raise DataError('file: gone')", "rank {rank} of 2: file: gone"),
    ],
    ids=["killed", "raises", "fails"],
)
def test_a_rank_that_ends_ends_all_and_is_named_alone(folder, accident, line, rank):
    """The run would take 1,000,000 steps; it ends at the fifth."""
    (folder / "accident.py").write_text(ACCIDENT.format(rank=rank, accident=accident))
    done = run(2, "train", *LONG, "--out", "run", "--save-every", "1e-9", module=["accident.py"])
    assert done.returncode != 0
    assert (
        f"refmaml: {line.format(rank=rank)}" in done.stderr and done.stderr.count("refmaml: ") == 1
    )
    step = checkpoint.load("run/checkpoint.npz")[0].step
    assert 1 <= step <= 5
    if "SIGKILL" in accident:
        same_as_alone(step)


def same_as_alone(step):
    """The run's folder has what so many steps in one process leave."""
    assert (
        run(1, "train", *SMALL, "--steps", str(step), "--quiet", "--out", "alone").returncode == 0
    )
    assert left_in("run")[:3] == left_in("alone")[:3]


def test_on_a_terminal_there_is_one_bar():
    master, slave = pty.openpty()
    with subprocess.Popen(
        command(2, "train", *SMALL, "--steps", "40", "--out", "run"),
        stdout=subprocess.DEVNULL,
        stderr=slave,
    ) as going:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # on Linux: the other end is closed
                break
            if not part:
                break
            shown += part
        assert going.wait(LIMIT) == 0
    os.close(master)
    assert b"40/40" in shown and shown.count(b"40/40") <= 3 and b"step 1/40, " not in shown
