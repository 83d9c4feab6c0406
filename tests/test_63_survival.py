"""A run that is killed, stopped, starved of disk, run twice at once, or diverges: what is left is whole, and says how to go on."""
import csv
import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refmaml.cli import main, run_folder
from refmaml.errors import DataError, NonFiniteError
from refmaml.storage import atomic
from refmaml.storage.locks import sole_writer
from refmaml.training import advance, checkpoint, trainer

ROOT = Path(__file__).parent.parent
SMALL = ["--data", "sinusoid", "--hidden", "4", "--tasks", "3", "--eval-tasks", "5", "--kernels", "reference", "--quiet"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def reliability(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "reliability")


def run(*more, out="run"):
    return main(["train", *SMALL, "--out", out, *more])


def left(out):
    """A run's parameters, optimiser and curve, but for the seconds."""
    now, _ = checkpoint.load(f"{out}/checkpoint.npz")
    with open(f"{out}/curve.csv", newline="") as file:
        return now.step, now.meta.tobytes(), {k: a.tobytes() for k, a in now.state.items()}, [row[:-1] for row in csv.reader(file)]


def python(code, *arguments, **options):
    """A process of its own."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, **options)


# ---- killed --------------------------------------------------------------------------------------------------------------

def harness(*arguments):
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "reliability" / "kill.py", *arguments], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


def test_runs_killed_at_random_go_on_to_the_same_bits():
    status, record = harness("--kills", "6")
    assert status == 0 and record["kills"] == 6 and record["corrupt"] == record["runs_with_something_wrong"] == 0
    assert record["at_a_file_operation"] > 0


def test_a_save_that_can_be_seen_half_done_is_found_by_killing():
    status, record = harness("--kills", "3", "--naive")
    assert status == 1 and record["corrupt"] > 0 and any("zip" in line for line in record["wrong"])


def test_what_a_killed_process_left_goes_with_the_next_start():
    run("--steps", "2")
    for name in ("checkpoint.npz", "curve.png", "result.json"):
        Path("run", f".{name}.{'0' * 32}.part").write_bytes(b"half")
    Path("run", ".lock").write_text("process 1 on elsewhere")                   # nobody holds it: its owner is dead
    assert run("--resume", "--steps", "3") == 0
    assert sorted(os.listdir("run")) == ["checkpoint.npz", "config.json", "curve.csv", "curve.png", "result.json"]


def test_going_on_with_other_threads_and_chunks_changes_no_bit(monkeypatch):
    """Numba's kernels; each part of the run is a process with another number of threads."""
    def part(out, steps, threads, chunk, *more):
        monkeypatch.setenv("NUMBA_NUM_THREADS", str(threads))
        code = "import sys; from refmaml.cli import main; sys.exit(main(sys.argv[1:]))"
        argv = ["train", *SMALL[:-3], "--kernels", "cpu", "--quiet", "--out", out, "--steps", steps, "--chunk", chunk, *more]
        with python(code, *argv) as child:
            assert child.wait() == 0, child.stderr.read()
    part("whole", 9, 1, 8)
    for threads, steps, chunk in ((2, 5, 1), (4, 9, 3)):
        part("parts", steps, threads, chunk, *["--resume"] * (steps > 5))
    assert left("parts") == left("whole")


# ---- stopped -------------------------------------------------------------------------------------------------------------

def stop_at(monkeypatch, step, *signals):
    """Have signals come in the middle of a step."""
    def stopped(recipe, now):
        if now.step == step:
            for signum in signals:
                os.kill(os.getpid(), signum)
        return advance(recipe, now)
    monkeypatch.setattr(trainer, "advance", stopped)


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_says_how_to_go_on(capsys, monkeypatch, signum, status):
    run("--steps", "6", out="whole")
    capsys.readouterr()
    before = signal.getsignal(signum)
    with monkeypatch.context() as patch:
        stop_at(patch, 4, signum)
        assert run("--steps", "6") == status
    said = capsys.readouterr().err
    assert said == "refmaml: interrupted; saved; to go on: refmaml train --resume --out run\n" and signal.getsignal(signum) == before
    assert checkpoint.load("run/checkpoint.npz")[0].step == 4
    assert main(said.split("to go on: refmaml ")[1].split()) == 0 and left("run") == left("whole")


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
    assert run("--steps", "50", "--save-every", "1e-9") == 130
    step = checkpoint.load("run/checkpoint.npz")[0].step
    assert len(writes) == 4 and step == len(left("run")[3]) - 1 > 0


# ---- no disk -------------------------------------------------------------------------------------------------------------

class Full:
    """A disk whose n-th write, or sync, fails, and all later ones."""

    def __init__(self, monkeypatch, last, code):
        self.count, self.last, self.code = 0, last, code
        fsync, disk = os.fsync, self

        class Raw(io.FileIO):
            def write(self, data):
                disk.use()
                return super().write(data)
        monkeypatch.setattr(atomic, "open", lambda path, mode: io.BufferedWriter(Raw(path, mode)), raising=False)
        monkeypatch.setattr(os, "fsync", lambda fd: (self.use(), fsync(fd)))

    def use(self):
        self.count += 1
        if self.count > self.last:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_write_is_one_line_and_the_last_checkpoint_stays(capsys, monkeypatch, code):
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
        assert status == 2 and err.count("\n") == 1 and err.startswith("refmaml: run/") and os.strerror(code) in err
        assert left("run")[0] in (2, 3) and not [name for name in os.listdir("run") if name.startswith(".")]
        assert left("run")[:3] == before[:3] or left("run")[0] == 3
    assert status == 0 and wrote > 10


def test_a_limit_on_file_sizes_is_one_line_and_the_last_checkpoint_stays():
    code = ("import resource, sys; from refmaml.cli import main\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "sys.exit(main(sys.argv[1:]))")
    run("--steps", "2")
    before = left("run")
    child = python(code, "train", "--resume", "--out", "run", "--steps", "3", "--quiet")
    out, err = child.communicate()
    assert child.returncode == 2 and err == ("refmaml: run/checkpoint.npz: expected a file that can be written, got File too large; "
                                             "the checkpoint of step 2 is there still\n")
    assert left("run") == before and not [name for name in os.listdir("run") if name.startswith(".")]


def test_a_save_on_the_way_that_fails_is_told_and_tried_again(capsys, monkeypatch):
    run("--steps", "8", out="whole")
    save, calls = checkpoint.save, []

    def sometimes(*arguments):
        calls.append(arguments[1].step)
        if len(calls) in (2, 3):
            raise DataError("run/checkpoint.npz: expected a file that can be written, got No space left on device")
        save(*arguments)
    capsys.readouterr()
    monkeypatch.setattr(checkpoint, "save", sometimes)
    assert run("--steps", "8", "--save-every", "1e-9") == 0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and all("the checkpoint of step" in line and line.endswith("saving is tried again") for line in err)
    assert left("run") == left("whole")


@pytest.fixture
def nobody():
    """No right to write where permissions forbid it, which root has."""
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
    request.getfixturevalue("nobody")
    capsys.readouterr()
    for argv in (["--out", "locked"], ["--out", "locked/new"], ["--out", "run", "--resume", "--steps", "2"]):
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
    assert capsys.readouterr().err == ("refmaml: run/checkpoint.npz: expected a file that can be written, got a read-only file; "
                                       "the checkpoint of step 1 is there still\n")
    assert left("run") == before


def test_evaluate_asks_before_working_whether_its_result_can_be_written(capsys, folder):
    run("--steps", "1")
    (folder / "kept.json").write_text("kept")
    (folder / "kept.json").chmod(0o444)
    capsys.readouterr()
    for place, reason in (("nowhere/x.json", "No such file"), ("run", "a folder"), ("kept.json", "a read-only file")):
        assert main(["evaluate", "run/checkpoint.npz", "--tasks", "5", "--json", place]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"refmaml: {place}: expected a file that can be written, got {reason}")
    assert (folder / "kept.json").read_text() == "kept"


# ---- two at once ---------------------------------------------------------------------------------------------------------

def test_a_second_process_in_a_folder_gets_one_line_and_the_first_is_not_disturbed(capsys, monkeypatch):
    run("--steps", "2")
    code = ("import sys, time; from pathlib import Path; from refmaml.storage.locks import sole_writer\n"
            "with sole_writer(Path('run')): print('in', flush=True); sys.stdin.read()")
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
    code = ("import sys; from pathlib import Path; from refmaml.storage.locks import sole_writer\n"
            "with sole_writer(Path('.')): print('in', flush=True); sys.stdin.read()")
    with python(code, stdin=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(DataError, match=f"process {other.pid} on"), sole_writer(tmp_path):
            pass
        other.kill()
    with sole_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_runs_without_a_folder_started_together_get_one_each(monkeypatch):
    make, taken = run_folder.new_folder, []
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: False if path.parent.name == "runs" else exists(path))     # as if asked at once
    for _ in range(3):
        taken.append(make({}, {"data": "sinusoid", "method": "maml"}).name)
    assert taken == ["sinusoid-maml", "sinusoid-maml-2", "sinusoid-maml-3"]


# ---- diverging -----------------------------------------------------------------------------------------------------------

def test_a_diverging_run_names_step_task_and_layer_and_keeps_the_last_checkpoint(capsys, monkeypatch):
    from refmaml.tasks import Sinusoids
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
    assert out == "" and err == ("refmaml: meta-step 5: query set: the inputs: expected finite numbers, got 1 non-finite ones in task 2; "
                                 "run/checkpoint.npz is as it was after step 0, the curve goes to step 4\n")
    assert checkpoint.load("run/checkpoint.npz")[0].step == 0
    table = Path("run/curve.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["step", "1", "2", "3", "4"] and Path("run/curve.png").exists()


@pytest.mark.parametrize("chunk", ["1", "2", "8"])
def test_an_overflow_in_a_layer_names_it_whatever_the_chunk(capsys, monkeypatch, chunk):
    from refmaml.tasks import Sinusoids
    sample = Sinusoids.sample

    def huge(self, tasks, *, step, **more):
        batch = sample(self, tasks, step=step, **more)
        batch.x_query[1:, 0] = 3e38 if step == 1 else 1
        return batch
    monkeypatch.setattr(Sinusoids, "sample", huge)
    assert run("--steps", "9", "--chunk", chunk, "--inner-lr", "5") == 2
    err = capsys.readouterr().err
    assert err.startswith("refmaml: meta-step 2: query set: the ") and "in task 1; run/checkpoint.npz" in err


def test_an_optimiser_whose_state_overflows_is_stopped_before_it_stands_still(capsys):
    class Steep:
        def init(self, meta):
            return {"v": np.zeros_like(meta)}

        def update(self, meta, grad, state, t, lr):
            return meta, {"v": np.where(np.arange(len(meta)) == 5, np.inf, 0).astype(meta.dtype)}
    from dataclasses import replace

    from refmaml import MAML, Sinusoids
    from refmaml.nets import mlp
    from refmaml.training import SGD, Recipe, Schedule
    recipe = Recipe(mlp((1, 5, 1)), MAML(0.01), SGD(), Schedule(1.0), lambda step: Sinusoids().sample(2, step=step))
    recipe = replace(recipe, optimizer=Steep())
    with pytest.raises(NonFiniteError, match=r"^meta-step 1: the update: expected finite v, got 1 non-finite ones, .* 5 \(0.bias\)"):
        advance(recipe, recipe.start(recipe.net.init(0)))


# ---- fuzzing -------------------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", ["checkpoint", "golden", "cache", "omniglot"])
def test_a_few_hundred_damaged_files_let_nothing_escape(reliability, tmp_path, loader):
    import fuzz
    found = fuzz.fuzz(loader, 600, random.Random(1), tmp_path, executions=250)
    assert found == {"executions": 250, "escapes": {}}


@pytest.mark.filterwarnings("ignore")
def test_a_loader_that_lets_something_escape_is_found(reliability, tmp_path, monkeypatch):
    import fuzz
    monkeypatch.setattr(fuzz, "LOADERS", dict(fuzz.LOADERS))
    fuzz.plant("catch")
    found = fuzz.fuzz("checkpoint", 600, random.Random(1), tmp_path, executions=250)["escapes"]
    assert "tokenize.TokenError" in found
