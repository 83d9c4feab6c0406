"""Writing golden vectors: complete or not at all, and the same bytes each time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from refmaml.cli import main
from refmaml.golden import check, files
from refmaml.golden.problems import problems

ROOT = Path(__file__).parent.parent
KNOWN = problems()


def test_another_process_writes_the_same_bytes(golden, tmp_path):
    folder = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-m", "refmaml", "golden", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "7", "OPENBLAS_NUM_THREADS": "1"},
    )
    for path in golden.glob("*.npz"):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
    first, second = (json.loads((f / "manifest.json").read_text()) for f in (golden, folder))
    assert first["files"] == second["files"] and first["problems"] == second["problems"]
    assert {"refmaml", "python", "numpy"} == set(second["versions"]) and second[
        "command"
    ] == "refmaml golden DIR"


def test_no_existing_folder_is_replaced(golden, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in golden.iterdir()}
    assert main(["golden", str(golden)]) == 2
    assert capsys.readouterr().err == (
        f"refmaml: DIR: expected a folder that does not exist yet, or an empty one, got {golden}, "
        "which holds something\n"
    )
    assert before == {path.name: path.stat().st_mtime_ns for path in golden.iterdir()}


def test_a_run_that_is_stopped_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_manifest", stop)
    monkeypatch.setattr(check, "problems", lambda *_: {"quadratic": KNOWN["quadratic"]})
    assert main(["golden", str(tmp_path / "out")]) == 130
    assert list(tmp_path.iterdir()) == []


def test_files_of_a_killed_process_are_removed_and_those_of_a_running_one_are_not(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from refmaml.golden.files import new_folder\n"
        "with new_folder(sys.argv[1]) as part: (part / 'half').touch(); "
        "print(flush=True); time.sleep(60)"
    )

    def parts():
        return sorted(path for path in tmp_path.iterdir() if path.name.endswith(".part"))

    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "g"], stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        (left,) = parts()
        with files.new_folder(tmp_path / "g") as mine:
            assert parts() == sorted([left, mine])
        shutil.rmtree(tmp_path / "g")
        child.kill()
    assert parts() == [left] and (left / "half").exists()
    with files.new_folder(tmp_path / "g") as mine:
        assert parts() == [mine]
    assert os.listdir(tmp_path) == ["g"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["golden", str(tmp_path / "file" / "out")]) == 2
    assert (
        capsys.readouterr().err
        == f"refmaml: {tmp_path / 'file' / 'out'}: expected a folder that can be "
        f"written, got Not a directory\n"
    )
