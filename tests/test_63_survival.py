"""A run that is killed, stopped, or started twice at once leaves complete files."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL
from small_runs import ROOT, left, python, run

from refmaml.cli import main, run_folder
from refmaml.errors import DataError
from refmaml.storage.locks import is_ours, sole_writer
from refmaml.training import advance, checkpoint, trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]


def harness(*arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "reliability" / "kill.py", *arguments],
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(done.stdout)


def test_runs_killed_at_random_are_resumed_to_the_same_bits():
    status, record = harness("--kills", "6")
    assert (
        status == 0
        and record["kills"] == 6
        and record["corrupt"] == record["runs_with_something_wrong"] == 0
    )
    assert record["at_a_file_operation"] > 0


def test_a_save_that_is_not_atomic_is_found_by_killing():
    status, record = harness("--kills", "3", "--naive")
    assert status == 1 and record["corrupt"] > 0 and any("zip" in line for line in record["wrong"])


def test_parts_of_a_killed_process_are_removed_by_the_next_start():
    run("--steps", "2")
    for name in ("checkpoint.npz", "curve.png", "result.json"):
        Path("run", f".{name}.{'0' * 32}.part").write_bytes(b"half")
    Path("run", ".lock").write_text("process 1 on elsewhere")  # not locked: its owner is dead
    assert run("--resume", "--steps", "3") == 0
    assert sorted(os.listdir("run")) == [
        "checkpoint.npz",
        "config.json",
        "curve.csv",
        "curve.png",
        "result.json",
    ]


def test_going_on_with_other_threads_and_chunks_changes_no_bit(monkeypatch):
    """With Numba's kernels.

    Each part of the run is a process with another number of threads.
    """

    def part(out, steps, threads, chunk, *more):
        monkeypatch.setenv("NUMBA_NUM_THREADS", str(threads))
        code = "import sys; from refmaml.cli import main; sys.exit(main(sys.argv[1:]))"
        argv = [
            "train",
            *SMALL[:-3],
            "--kernels",
            "cpu",
            "--quiet",
            "--out",
            out,
            "--steps",
            steps,
            "--chunk",
            chunk,
            *more,
        ]
        with python(code, *argv) as child:
            assert child.wait() == 0, child.stderr.read()

    part("whole", 9, 1, 8)
    for threads, steps, chunk in ((2, 5, 1), (4, 9, 3)):
        part("parts", steps, threads, chunk, *["--resume"] * (steps > 5))
    assert left("parts") == left("whole")


def stop_at(monkeypatch, step, *signals):
    """Send signals in the middle of a step."""

    def stopped(recipe, now):
        if now.step == step:
            for signum in signals:
                os.kill(os.getpid(), signum)
        return advance(recipe, now)

    monkeypatch.setattr(trainer, "advance", stopped)


@pytest.mark.parametrize(
    "signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_prints_the_command_that_resumes(capsys, monkeypatch, signum, status):
    run("--steps", "6", out="whole")
    capsys.readouterr()
    before = signal.getsignal(signum)
    with monkeypatch.context() as patch:
        stop_at(patch, 4, signum)
        assert run("--steps", "6") == status
    err = capsys.readouterr().err
    assert (
        err == "refmaml: interrupted; saved; to go on: refmaml train --resume --out run\n"
        and signal.getsignal(signum) == before
    )
    assert checkpoint.load("run/checkpoint.npz")[0].step == 4
    assert main(err.split("to go on: refmaml ")[1].split()) == 0 and left("run") == left("whole")


def test_a_second_ctrl_c_while_saving_changes_nothing(capfd, monkeypatch):
    save, saves = checkpoint.save, []

    def slow(*arguments):
        saves.append(arguments[1].step)
        if len(saves) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        save(*arguments)

    stop_at(monkeypatch, 3, signal.SIGINT)
    monkeypatch.setattr(checkpoint, "save", slow)
    assert run("--steps", "6") == 130
    assert saves == [0, 3] and checkpoint.load("run/checkpoint.npz")[0].step == 3
    err = capfd.readouterr().err
    assert err.count("refmaml: still saving\n") == 2 and err.endswith("--resume --out run\n")


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop_at(monkeypatch, 2, signal.SIGHUP)
        assert run("--steps", "4") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_during_a_save_on_the_way_saves_again(monkeypatch):
    write, writes = checkpoint.durable_write, []

    def interrupted(path):
        writes.append(path)
        if len(writes) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return write(path)

    monkeypatch.setattr(checkpoint, "durable_write", interrupted)
    monkeypatch.setattr(
        trainer, "MIN_SAVE_PAUSE", 0
    )  # saves after every step, independent of its duration
    assert run("--steps", "50", "--save-every", "1e-9") == 130
    step = checkpoint.load("run/checkpoint.npz")[0].step
    assert len(writes) == 4 and step == len(left("run")[3]) - 1 > 0


def test_a_second_process_in_a_folder_gets_one_line_and_the_first_is_not_disturbed(
    capsys, monkeypatch
):
    run("--steps", "2")
    code = (
        "import sys, time; from pathlib import Path; from refmaml.storage.locks import "
        "sole_writer\n"
        "with sole_writer(Path('run')): print('in', flush=True); sys.stdin.read()"
    )
    with python(code, stdin=subprocess.PIPE) as other:
        assert other.stdout.readline() == "in\n"
        before = sorted(os.listdir("run"))
        part = Path("run", f".curve.csv.{'0' * 32}.part")
        part.write_bytes(b"half")
        capsys.readouterr()
        assert run("--resume", "--steps", "3") == 2 and run("--steps", "3") == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 2 and err.count(f"got one where process {other.pid} on ") == 2
        part.unlink(missing_ok=True)
        assert sorted(os.listdir("run")) == before
        other.communicate("")
    assert run("--resume", "--steps", "3") == 0


def test_a_lock_is_gone_when_its_owner_is_killed_and_when_it_ends(tmp_path):
    code = (
        "import sys; from pathlib import Path; from refmaml.storage.locks import sole_writer\n"
        "with sole_writer(Path('.')): print('in', flush=True); sys.stdin.read()"
    )
    with python(code, stdin=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(DataError, match=f"process {other.pid} on"), sole_writer(tmp_path):
            pass
        other.kill()
    with sole_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_a_folder_stays_ours_when_the_machine_is_given_another_name(tmp_path, monkeypatch):
    with sole_writer(tmp_path):
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "another", "", "", "")))
        assert is_ours(tmp_path)
        (tmp_path / ".lock").write_text(f"process {os.getpid() + 1} on another")
        assert not is_ours(tmp_path)


def test_a_runs_folder_that_links_to_nowhere_is_one_line(capsys):
    Path("runs").symlink_to("scratch/that/is/not/mounted")
    assert main(["train", "--data", "sinusoid", "--steps", "1", "--quiet"]) == 2
    assert re.fullmatch(
        r"refmaml: runs/sinusoid-maml: expected a folder that can be written, got .*\n",
        capsys.readouterr().err,
    )


def test_runs_without_a_folder_started_together_get_one_each(monkeypatch):
    make, taken = run_folder.new_folder, []
    exists = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda path: False if path.parent.name == "runs" else exists(path)
    )  # as if both checked at the same time
    for _ in range(3):
        taken.append(make(None, "sinusoid-maml").name)
    assert taken == ["sinusoid-maml", "sinusoid-maml-2", "sinusoid-maml-3"]
