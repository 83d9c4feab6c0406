"""A run that fills the disk, or diverges, ends in one line; earlier files remain."""

import errno
import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL
from small_runs import left, python, run

from refmaml import MAML, Sinusoids
from refmaml.cli import main
from refmaml.errors import DataError, NonFiniteError
from refmaml.models import mlp
from refmaml.storage import atomic
from refmaml.training import SGD, Recipe, Schedule, advance, checkpoint, trainer
from refmaml.update_rules import UpdateRule

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]


# ---- no disk -------------------------------------------------------------------------


class Full:
    """A disk whose n-th write or sync fails, and all later ones too."""

    def __init__(self, monkeypatch, last, code):
        self.count, self.last, self.code = 0, last, code
        fsync, disk = os.fsync, self

        class Raw(io.FileIO):
            def write(self, data):
                disk.use()
                return super().write(data)

        monkeypatch.setattr(
            atomic, "open", lambda path, mode: io.BufferedWriter(Raw(path, mode)), raising=False
        )
        monkeypatch.setattr(os, "fsync", lambda fd: (self.use(), fsync(fd)))

    def use(self):
        self.count += 1
        if self.count > self.last:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_write_is_one_line_and_the_last_checkpoint_stays(
    capsys, monkeypatch, code
):
    run("--steps", "2")
    before, wrote = left("run"), 0
    while True:
        wrote += 1
        with monkeypatch.context() as patch:
            disk = Full(patch, wrote, code)
            status = run("--resume", "--steps", "3")
        out, err = capsys.readouterr()
        if disk.count <= wrote:
            break
        assert (
            status == 2
            and err.count("\n") == 1
            and err.startswith("refmaml: run/")
            and os.strerror(code) in err
        )
        assert left("run")[0] in (2, 3) and not [
            name for name in os.listdir("run") if name.startswith(".")
        ]
        assert left("run")[:3] == before[:3] or left("run")[0] == 3
    assert status == 0 and wrote > 10


def test_a_limit_on_file_sizes_is_one_line_and_the_last_checkpoint_stays():
    code = (
        "import resource, sys; from refmaml.cli import "
        "main\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    run("--steps", "2")
    before = left("run")
    child = python(code, "train", "--resume", "--out", "run", "--steps", "3", "--quiet")
    out, err = child.communicate()
    assert child.returncode == 2 and err == (
        "refmaml: run/checkpoint.npz: expected a file that can be written, got File too large; "
        "the checkpoint of step 2 is there still\n"
    )
    assert left("run") == before and not [
        name for name in os.listdir("run") if name.startswith(".")
    ]


def test_a_periodic_save_that_fails_is_reported_and_tried_again(capsys, monkeypatch):
    run("--steps", "8", out="whole")
    save, calls = checkpoint.save, []

    def sometimes(*arguments):
        calls.append(arguments[1].step)
        if len(calls) in (2, 3):
            raise DataError(
                "run/checkpoint.npz: expected a file that can be written, got No space left "
                "on device"
            )
        save(*arguments)

    capsys.readouterr()
    monkeypatch.setattr(
        trainer, "MIN_SAVE_PAUSE", 0
    )  # saves after every step, independent of its duration
    monkeypatch.setattr(checkpoint, "save", sometimes)
    assert run("--steps", "8", "--save-every", "1e-9") == 0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and all(
        "the checkpoint of step" in line and line.endswith("saving is tried again") for line in err
    )
    assert left("run") == left("whole")


@pytest.fixture
def unprivileged():
    """Without root's right to write where permissions forbid it."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_folder_that_may_not_be_written_is_one_line(capsys, folder, request):
    run("--steps", "1")
    before = left("run")
    (folder / "locked").mkdir()
    for path in (folder / "locked", folder / "run"):
        path.chmod(0o555)
    for up in (folder, *folder.parents[:2]):
        up.chmod(up.stat().st_mode | 0o055)
    request.getfixturevalue("unprivileged")
    capsys.readouterr()
    for argv in (
        ["--out", "locked"],
        ["--out", "locked/new"],
        ["--out", "run", "--resume", "--steps", "2"],
    ):
        assert main(["train", *SMALL, *argv]) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1 and "can be written, got Permission denied" in err
    assert left("run") == before


def test_a_read_only_checkpoint_is_not_replaced(capsys):
    run("--steps", "1")
    before = left("run")
    Path("run/checkpoint.npz").chmod(0o444)
    capsys.readouterr()
    assert run("--resume", "--steps", "2") == 2
    assert capsys.readouterr().err == (
        "refmaml: run/checkpoint.npz: expected a file that can be written, got a read-only file; "
        "the checkpoint of step 1 is there still\n"
    )
    assert left("run") == before


def test_evaluate_checks_before_the_work_that_its_result_can_be_written(capsys, folder):
    run("--steps", "1")
    (folder / "kept.json").write_text("kept")
    (folder / "kept.json").chmod(0o444)
    capsys.readouterr()
    for place, reason in (
        ("nowhere/x.json", "No such file"),
        ("run", "a folder"),
        ("kept.json", "a read-only file"),
    ):
        assert main(["evaluate", "run/checkpoint.npz", "--tasks", "5", "--json", place]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(
            f"refmaml: --json: expected a file that can be written, got {place}: {reason}"
        )
    assert (folder / "kept.json").read_text() == "kept"


# ---- diverging -----------------------------------------------------------------------


def test_a_diverging_run_names_step_task_and_layer_and_keeps_the_last_checkpoint(
    capsys, monkeypatch
):
    sample = Sinusoids.sample

    def poisoned(self, tasks, *, step, **more):
        batch = sample(self, tasks, step=step, **more)
        if step == 4:
            batch.x_query[2] = 1e30
            batch.x_query[2, 0] = np.inf
        return batch

    monkeypatch.setattr(Sinusoids, "sample", poisoned)
    assert run("--steps", "9", "--chunk", "2") == 2
    out, err = capsys.readouterr()
    assert out == "" and err == (
        "refmaml: meta-step 5: query set: the inputs: expected finite numbers, got 1 "
        "non-finite ones in task 2; "
        "run/checkpoint.npz is as it was after step 0, the curve goes to step 4\n"
    )
    assert checkpoint.load("run/checkpoint.npz")[0].step == 0
    table = Path("run/curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["step", "1", "2", "3", "4"] and Path(
        "run/curve.png"
    ).exists()


@pytest.mark.parametrize("chunk", ["1", "2", "8"])
def test_an_overflow_in_a_layer_names_it_whatever_the_chunk(capsys, monkeypatch, chunk):
    sample = Sinusoids.sample

    def huge(self, tasks, *, step, **more):
        batch = sample(self, tasks, step=step, **more)
        batch.x_query[1:, 0] = 3e38 if step == 1 else 1
        return batch

    monkeypatch.setattr(Sinusoids, "sample", huge)
    assert run("--steps", "9", "--chunk", chunk, "--inner-lr", "5") == 2
    err = capsys.readouterr().err
    assert (
        err.startswith("refmaml: meta-step 2: query set: the ")
        and "in task 1; run/checkpoint.npz" in err
    )


def test_a_run_stops_as_soon_as_the_optimiser_s_state_overflows(capsys):
    class Steep(UpdateRule):
        def init(self, meta):
            return {"v": np.zeros_like(meta)}

        def direction(self, net, meta, grad, state, factors):
            fifth = np.arange(meta.shape[1]) == 5
            return 0 * grad, {"v": np.where(fifth, np.inf, 0).astype(meta.dtype)[None]}

    recipe = Recipe(
        mlp((1, 5, 1)),
        MAML(0.01),
        SGD(),
        Schedule(1.0),
        lambda step: Sinusoids().sample(2, step=step),
    )
    recipe = replace(recipe, optimizer=Steep())
    with pytest.raises(
        NonFiniteError,
        match=r"^meta-step 1: the update: expected finite v, got 1 non-finite ones, .* 5 "
        r"\(0.bias\)",
    ):
        advance(recipe, recipe.start(recipe.net.init(0)))
