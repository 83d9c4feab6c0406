"""Broken output streams and deleted run folders: the run continues or ends in one line.

Files that were complete before still exist.
"""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL
from small_runs import ROOT, left, run

from refmaml.cli import main
from refmaml.errors import DataError
from refmaml.storage import atomic
from refmaml.storage.locks import sole_writer
from refmaml.training import Row, advance, checkpoint, files, plot, trainer

pytestmark = pytest.mark.usefixtures("folder")

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
LOUD = SMALL[:-1]


def do_at(monkeypatch, step, act):
    """Call act() in the middle of a step."""

    def acted(recipe, now):
        if now.step == step:
            act()
        return advance(recipe, now)

    monkeypatch.setattr(trainer, "advance", acted)


# ---- streams -------------------------------------------------------------------------


def process(*argv, **streams):
    """A finished process with the given streams."""
    return subprocess.run(
        [sys.executable, "-m", "refmaml", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        **streams,
    )


@needs_full
def test_a_run_that_cannot_print_its_progress_continues():
    with FULL.open("w") as full:
        done = process(
            "train", *LOUD, "--steps", "8", "--out", "run", stderr=full, stdout=subprocess.PIPE
        )
    assert done.returncode == 0 and left("run")[0] == 8 and "held-out tasks" in done.stdout


@needs_full
def test_a_result_that_cannot_be_shown_is_written_and_that_is_one_line():
    with FULL.open("w") as full:
        done = process(
            "train",
            *LOUD,
            "--quiet",
            "--steps",
            "3",
            "--out",
            "run",
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 2
    assert (
        done.stderr
        == "refmaml: stdout: expected a place to read from or write to, got No space left on "
        "device\n"
    )
    assert left("run")[0] == 3 and Path("run/result.json").exists()


def test_a_second_ctrl_c_saves_too_where_stderr_is_a_broken_pipe(monkeypatch):
    """`refmaml train 2>&1 | tee log`: the first Ctrl-C ends tee."""
    save, write = checkpoint.save, os.write

    def slow(*arguments):
        if arguments[1].step:
            os.kill(os.getpid(), signal.SIGINT)
        save(*arguments)

    def gone(fd, data):
        if fd == 2:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return write(fd, data)

    do_at(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(os, "write", gone)
    assert run("--steps", "6") == 130 and left("run")[0] == 3


# ---- the folder changes --------------------------------------------------------------


def test_a_folder_that_is_removed_meanwhile_is_one_line_and_is_not_made_again(capsys, monkeypatch):
    do_at(monkeypatch, 3, lambda: shutil.rmtree("run"))
    assert run("--steps", "6") == 2
    assert capsys.readouterr().err == (
        "refmaml: run: expected the folder this run began in, got one that was removed, or "
        "that another process took\n"
    )
    assert not os.path.exists("run")


def test_a_folder_that_another_run_has_taken_is_left_as_it_is(capsys, monkeypatch):
    """The folder was removed, and another run of that name began."""

    def take():
        shutil.rmtree("run")
        Path("run").mkdir()
        Path("run/.lock").write_text("process 1 on elsewhere")
        Path("run/checkpoint.npz").write_bytes(b"another's")

    do_at(monkeypatch, 3, take)
    assert run("--steps", "6", "--save-every", "1e-9") == 2
    err = capsys.readouterr().err.splitlines()
    assert (
        err
        and all("that another process took" in line for line in err)
        and "is there still" not in err[-1]
    )
    assert (
        sorted(os.listdir("run")) == [".lock", "checkpoint.npz"]
        and Path("run/checkpoint.npz").read_bytes() == b"another's"
    )


def test_a_lock_that_cannot_be_removed_does_not_hide_what_went_wrong(folder, monkeypatch):
    def read_only(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(DataError, match="what went wrong"), sole_writer(folder):
        raise DataError("what went wrong")


def test_a_run_that_diverges_and_cannot_write_its_curve_reports_both(capsys, monkeypatch):
    do_at(monkeypatch, 1, lambda: os.chmod("run/curve.csv", 0o444))
    assert run("--steps", "50", "--optimizer", "sgd", "--lr", "1e30") == 2
    err = capsys.readouterr().err
    assert err.startswith("refmaml: meta-step 2: ") and err.count("\n") == 1
    assert (
        "checkpoint.npz is as it was after step 0, run/curve.csv: expected a file that can "
        "be written, got a read-only file" in err
    )


def test_a_curve_of_extreme_numbers_is_drawn_without_a_warning():
    rows = [Row(t, 1.0, 0.5, 10.0 ** (308 if t % 2 else -300), t) for t in range(1, 60)]
    plot.write_png("curve.png", rows)
    assert os.path.getsize("curve.png") > 0


# ---- file systems --------------------------------------------------------------------


def test_where_folders_cannot_be_synced_files_still_are(monkeypatch):
    sync, synced = os.fsync, []

    def of_a_virtual_machine(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced.append(sync(fd))

    monkeypatch.setattr(os, "fsync", of_a_virtual_machine)
    assert run("--steps", "2") == 0 and left("run")[0] == 2 and synced


def test_an_error_of_the_disk_while_a_folder_is_synced_is_raised(monkeypatch):
    def broken(fd):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        atomic.sync_folder(".")


def test_a_pipe_without_a_reader_is_one_line_and_stays_a_pipe():
    os.mkfifo("pipe")
    with pytest.raises(
        DataError,
        match="pipe: expected a file that can be written, got a pipe that no process reads",
    ):
        files.write_json("pipe", 1)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


# ---- a start that fails --------------------------------------------------------------


def test_a_start_that_fails_does_not_block_the_next(capsys):
    assert run("--steps", "2", "--plot", "nowhere/a.png") == 2
    assert run("--steps", "2") == 0
    assert capsys.readouterr().err.count("\n") == 1


def test_another_configuration_file_is_not_overwritten(capsys):
    Path("run").mkdir()
    Path("run/config.json").write_text("{}")
    assert run("--steps", "2") == 2
    assert (
        capsys.readouterr().err
        == "refmaml: --out: expected a folder in which a run overwrites nothing, got run "
        "with a config.json\n"
    )
    assert os.listdir("run") == ["config.json"] and Path("run/config.json").read_text() == "{}"


def test_the_command_that_resumes_can_be_typed(capsys, monkeypatch):
    do_at(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert run("--steps", "6", out="my run") == 130
    assert capsys.readouterr().err.endswith("to go on: refmaml train --resume --out 'my run'\n")


def test_a_name_that_no_file_system_holds_is_one_line(capsys):
    assert main(["train", "--resume", "--out", "a" * 300]) == 2
    assert capsys.readouterr().err.endswith(
        "/checkpoint.npz: expected a checkpoint of refmaml train, got File name too long\n"
    )
