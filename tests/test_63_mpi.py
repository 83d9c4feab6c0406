"""Real ranks, started by mpiexec: the same bits, one voice, and an end in good order whatever happens to one of them."""

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

from refmaml.training import checkpoint

# The one that pip installs beside this Python (the mpich wheel), else another.
MPIEXEC = shutil.which(
    "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)
pytestmark = [
    pytest.mark.skipif(
        find_spec("mpi4py") is None, reason="mpi4py is not installed: pip install 'refmaml[mpi]'"
    ),
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: pip install 'refmaml[mpi]'"),
]

# Other kernels would have to be compiled first; three tasks are one and two of two ranks, and leave one of four without.
SMALL = [
    "--data",
    "sinusoid",
    "--hidden",
    "4",
    "--tasks",
    "3",
    "--eval-tasks",
    "7",
    "--kernels",
    "reference",
]
LONG = [*SMALL, "--steps", "1000000", "--save-every", "0.2"]
LIMIT = 120  # seconds that a run may take on a busy machine
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # this refmaml, whatever is installed
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
    """A finished process; TimeoutExpired where ranks wait for each other for ever."""
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
    """A run's final state and curve, but for the seconds."""
    now, config = checkpoint.load(f"{path}/checkpoint.npz")
    return (
        now.meta.tobytes(),
        {k: a.tobytes() for k, a in now.state.items()},
        [(r.step, r.loss, r.grad_norm) for r in now.rows],
        config,
    )


def wait_for(path):
    """Until a run has saved something beyond its start."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if path.exists() and checkpoint.load(path)[0].step > 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"no step was saved in {LIMIT} s")


def test_one_two_and_four_ranks_leave_the_same_bits_and_one_result(folder):
    said = {}
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
        said[ranks] = re.sub(r"in \d+ s; see r\d", "", done.stdout)
    assert (
        len(set(said.values())) == 1 and said[1].count("\n") == 1 and " held-out tasks" in said[1]
    )
    assert left_in("r1") == left_in("r2") == left_in("r4")
    assert (
        run(3, "evaluate", "r4/checkpoint.npz", "--tasks", "7").stdout.split(" after ")[0].strip()
        in said[1]
    )


def test_what_is_wrong_on_all_ranks_is_said_once(folder):
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


def test_ctrl_c_saves_and_what_it_says_goes_on_with_the_same_bits(folder):
    with start(2, "train", *LONG, "--out", "run") as going:
        wait_for(folder / "run" / "checkpoint.npz")
        os.killpg(going.pid, signal.SIGINT)  # as a terminal does
        said = going.communicate(timeout=LIMIT)[1]
    assert going.returncode == 130
    line = next(line for line in said.splitlines() if line.startswith("refmaml:"))
    assert (
        line
        == "refmaml: interrupted; saved; to go on: mpiexec -n 2 python -m mpi4py -m refmaml train --resume --out run"
    )
    assert said.count("refmaml:") == 1 and "BAD TERMINATION" not in said
    step = checkpoint.load("run/checkpoint.npz")[0].step
    argv = ["--steps", str(step + 3), "--quiet"]
    assert run(3, "train", "--resume", "--out", "run", *argv).returncode == 0
    assert run(1, "train", *SMALL, *argv, "--out", "whole").returncode == 0
    assert left_in("run")[:3] == left_in("whole")[:3]


ACCIDENT = """
import os, signal, sys, time
from pathlib import Path
from mpi4py import MPI
from refmaml.cli import main
from refmaml.errors import DataError
from refmaml.training import trainer
advance = trainer.advance

def fail(recipe, now):
    if now.step == 5 and recipe.ranks.rank == {rank}:
        Path("when").write_text(str(time.monotonic()))
        {accident}
    return advance(recipe, now)
trainer.advance = fail
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_signal_that_only_one_rank_gets_stops_all_after_the_same_step(folder):
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


def test_a_signal_while_held_out_tasks_are_judged_stops_all_in_good_order(folder):
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
def test_a_rank_that_ends_ends_all_within_seconds_and_is_named(folder, accident, line, rank):
    (folder / "accident.py").write_text(ACCIDENT.format(rank=rank, accident=accident))
    done = run(2, "train", *LONG, "--out", "run", "--save-every", "1e-9", module=["accident.py"])
    assert (
        done.returncode != 0 and time.monotonic() - float((folder / "when").read_text()) < LIMIT / 4
    )
    assert (
        f"refmaml: {line.format(rank=rank)}" in done.stderr and done.stderr.count("refmaml: ") == 1
    )
    step = checkpoint.load("run/checkpoint.npz")[0].step
    assert 1 <= step <= 5
    if "SIGKILL" in accident:
        same_as_alone(step)


def same_as_alone(step):
    """What so many steps leave in one process lies in the run's folder."""
    assert (
        run(1, "train", *SMALL, "--steps", str(step), "--quiet", "--out", "alone").returncode == 0
    )
    assert left_in("run")[:3] == left_in("alone")[:3]


def test_where_somebody_watches_there_is_one_bar():
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
            except OSError:  # Linux's way of saying that nobody has the other end any more
                break
            if not part:
                break
            shown += part
        assert going.wait(LIMIT) == 0
    os.close(master)
    assert b"40/40" in shown and shown.count(b"40/40") <= 3 and b"step 1/40, " not in shown
