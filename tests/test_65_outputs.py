"""Outputs go through links and into streams, and never overwrite an input.

A wrong output is refused before the work.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL
from small_runs import ROOT, left, run

from refmaml.cli import demo, main, verify
from refmaml.errors import DataError
from refmaml.storage.atomic import atomic_folder, atomic_write
from refmaml.training import files

pytestmark = pytest.mark.usefixtures("folder")
EVALUATE = ["evaluate", "run/checkpoint.npz", "--tasks", "5"]


def error_line(capsys):
    """The only line on stderr; nothing is on stdout."""
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


# ---- links ---------------------------------------------------------------------------


def test_a_symbolic_link_stays_and_its_target_is_written(folder):
    (folder / "real").mkdir()
    (folder / "real" / "a.json").write_text("old")
    (folder / "link.json").symlink_to("second.json")
    (folder / "second.json").symlink_to("real/a.json")
    files.write_json("link.json", 1)
    assert json.loads((folder / "real" / "a.json").read_text()) == 1
    assert (folder / "link.json").is_symlink() and (folder / "second.json").is_symlink()
    assert os.listdir(folder / "real") == ["a.json"]


def test_a_link_to_a_missing_file_creates_that_file(folder):
    (folder / "link.json").symlink_to("new.json")
    files.write_json("link.json", 1)
    assert (folder / "link.json").is_symlink() and (folder / "new.json").read_text() == "1\n"


def test_a_link_to_a_read_only_file_and_a_circle_of_links_are_refused(folder):
    (folder / "kept.json").write_text("kept")
    (folder / "kept.json").chmod(0o444)
    (folder / "link.json").symlink_to("kept.json")
    (folder / "circle.json").symlink_to("circle.json")
    with pytest.raises(DataError, match="link.json: .* got a read-only file"):
        files.write_json("link.json", 1)
    with pytest.raises(DataError, match="circle.json: .* got Too many levels of symbolic links"):
        files.write_json("circle.json", 1)
    assert (folder / "kept.json").read_text() == "kept"


def test_a_folder_is_written_through_a_link_to_an_empty_folder(folder):
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    with atomic_folder(folder / "link") as part:
        (part / "a").touch()
    assert (folder / "link").is_symlink() and os.listdir(folder / "real") == ["a"]


def test_a_run_writes_through_the_links_in_its_folder(folder):
    run("--steps", "1")
    for name in ("checkpoint.npz", "curve.csv"):
        os.replace(folder / "run" / name, folder / name)
        (folder / "run" / name).symlink_to(folder / name)
    assert main(["train", "--resume", "--out", "run", "--steps", "2", "--quiet"]) == 0
    assert (folder / "run" / "checkpoint.npz").is_symlink() and left("run")[0] == 2


# ---- devices, pipes, descriptors -----------------------------------------------------


def test_the_null_device_takes_bytes_and_is_still_a_device():
    before = os.stat("/dev/null")
    files.write_json("/dev/null", 1)
    after = os.stat("/dev/null")
    assert (after.st_ino, after.st_mode, after.st_rdev) == (
        before.st_ino,
        before.st_mode,
        before.st_rdev,
    )


def test_a_pipe_gets_the_bytes_and_stays(folder):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.check_writable("pipe")  # must not end what the reader sees
        files.write_json("pipe", {"a": 1})
        assert json.loads(os.read(reader, 1000)) == {"a": 1}
    finally:
        os.close(reader)
    assert Path("pipe").is_fifo()


def test_after_an_error_nothing_is_written_to_a_stream(folder):
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ZeroDivisionError), atomic_write(Path("pipe")) as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert os.read(reader, 1000) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize("how", ["pipe", "file"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "link"])
def test_stdout_as_a_file_name_prints_after_the_result(folder, how, name):
    """As a pipe, and as a file, which must be appended to and not replaced."""
    run("--steps", "1")
    if name == "link":
        Path("link").symlink_to("/dev/stdout")
    command = [sys.executable, "-m", "refmaml", *EVALUATE, "--json", name]
    with open("out", "w+") as out:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE if how == "pipe" else out,
            check=True,
        )
        text = done.stdout.decode() if how == "pipe" else Path("out").read_text()
    line, _, report = text.partition("\n")
    assert " held-out tasks" in line and json.loads(report)["tasks"] == 5
    assert Path("/dev/stdout").is_symlink()


# ---- refused before the work ---------------------------------------------------------


def test_every_report_is_refused_before_the_work_where_it_cannot_be_written(capsys, monkeypatch):
    run("--steps", "1")
    Path("f.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setattr(verify, "kernel_set", lambda name: pytest.fail("began to work"))
    for command in (["verify"], EVALUATE, ["doctor", "f.py:f"]):
        for path, reason in ((".", "a folder"), ("no/x", "No such file or directory")):
            capsys.readouterr()
            assert main([*command, "--json", path]) == 2
            line = error_line(capsys)
            assert line.startswith("refmaml: --json: expected a file that can be written, got ")
            assert line.endswith(f"{path}: {reason}\n")


def test_an_output_that_is_an_input_or_another_output_is_refused(capsys):
    run("--steps", "1")
    before = left("run")
    Path("link.npz").symlink_to("run/checkpoint.npz")
    os.link("run/checkpoint.npz", "hard.npz")
    for path in ("run/checkpoint.npz", "run/../run/checkpoint.npz", "link.npz", "hard.npz"):
        capsys.readouterr()
        assert main([*EVALUATE, "--json", path]) == 2
        assert error_line(capsys) == (
            f"refmaml: --json: expected a file other than the checkpoint, got {Path(path)}\n"
        )
    assert left("run") == before
    Path("f.py").write_text("def f(problem, params, batch): return params\n")
    assert main(["doctor", "f.py:f", "--json", "f.py"]) == 2
    assert "a file other than the function's, got f.py" in error_line(capsys)
    assert main(["doctor", "f.py:f", "--json", "new", "--markdown", "new"]) == 2
    assert "--markdown: expected a file other than --json, got new" in error_line(capsys)
    os.rename("run/config.json", "config.png")
    argv = ["train", "--config", "config.png", "--out", "other", "--plot", "config.png"]
    assert main([*argv, "--quiet"]) == 2
    assert "--plot: expected a file other than --config, got config.png" in error_line(capsys)
    assert json.loads(Path("config.png").read_text())["data"] == "sinusoid"


def test_a_report_of_the_doctor_that_cannot_be_completed_leaves_the_old_one(capsys, monkeypatch):
    from refmaml.cli import doctor

    Path("keep.json").write_text("kept")

    class Full:
        def __enter__(self):
            return self

        def write(self, data):
            raise OSError(28, "No space left on device")

        def __exit__(self, *exception):
            return None

    from refmaml.storage import atomic

    new_part = atomic._new_part

    def full(path):
        part, file = new_part(path)
        file.close()
        return part, Full()

    monkeypatch.setattr(atomic, "_new_part", full)
    with pytest.raises(DataError, match="--json: expected .* got keep.json: No space left"):
        doctor.write("keep.json", "{}", "--json")
    assert Path("keep.json").read_text() == "kept" and os.listdir(".") == ["keep.json"]


def test_a_second_demo_is_refused_in_the_same_folder_and_has_its_own_without_one(
    capsys, monkeypatch
):
    folders = []

    def write_results(out, given, quiet):
        folders.append(str(out))
        (out / "demo.json").write_text("{}")

    monkeypatch.setattr(demo, "write_results", write_results)
    assert main(["demo"]) == main(["demo"]) == main(["demo", "--out", "D"]) == 0
    assert folders == ["runs/demo", "runs/demo-2", "D"]
    assert main(["demo", "--out", "D"]) == 2
    assert error_line(capsys) == (
        "refmaml: --out: expected a folder in which the demo overwrites nothing, "
        "got D with a demo.json\n"
    )


def test_more_threads_than_numba_has_are_refused_before_the_work(capsys):
    from numba import config

    many = str(config.NUMBA_NUM_THREADS + 1)
    run("--steps", "1")
    cpu = [*SMALL[: SMALL.index("--kernels")], "--kernels", "cpu", "--quiet"]
    for command in (
        ["train", *cpu, "--steps", "1", "--out", "new"],
        [*EVALUATE, "--kernels", "cpu"],
    ):
        capsys.readouterr()
        assert main([*command, "--threads", many]) == 2
        line = error_line(capsys)
        assert line.startswith(f"refmaml: --threads: expected at most {config.NUMBA_NUM_THREADS}, ")
        assert line.endswith(f", got {many}\n")
    assert not Path("new").exists()
