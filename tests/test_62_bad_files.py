"""Malicious files are refused in one line, and nothing is lost.

Within a second, and with at most 64 MB more memory than the size of the file.
"""

import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bad_files import ARCHIVES, ARRAYS, MEMBER, drawn, npy, packed

from refmaml.bench.memory import reset_peak, resident
from refmaml.cli import main
from refmaml.errors import DataError
from refmaml.golden import files as golden
from refmaml.storage.npz import read_members
from refmaml.tasks import Omniglot, drawings
from refmaml.tasks.cache import cached
from refmaml.training import Progress, Row, Rows
from refmaml.training.checkpoint import load, save

SECOND, ROOM = 1.0, 64 << 20


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def answered(path, read):
    """The line that refuses a file, within time and memory; the folder stays."""
    from time import process_time

    folder, began, before = sorted(os.listdir(path.parent)), process_time(), reset_peak()
    with pytest.raises(DataError) as caught:
        read(path)
    used = 0 if before is None else resident("VmHWM") - before  # None: not available on this system
    line = str(caught.value)
    assert process_time() - began < SECOND and used < ROOM + (
        path.stat().st_size if path.is_file() else 0
    )
    assert (
        line.startswith(str(path))
        and line.isprintable()
        and ", got " in line
        and sorted(os.listdir(path.parent)) == folder
    )
    return line


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", ARRAYS)
def test_a_bad_npz_is_refused_as_checkpoint_and_golden_file_and_built_anew_as_cache(tmp_path, what):
    (path := tmp_path / "bad.npz").write_bytes(ARRAYS[what])
    answered(path, load)
    answered(path, lambda p: golden.read_arrays(p, {"sha256": "", "arrays": {}}))
    kept = {"numbers": np.arange(3, dtype=np.uint8)}
    cached("thing", 1, lambda: kept, lambda arrays: True)
    file = next((tmp_path / "cache" / "refmaml").iterdir())
    file.write_bytes(ARRAYS[what])
    assert cached("thing", 1, lambda: {"numbers": kept["numbers"] + 1}, lambda arrays: True)[
        "numbers"
    ].tolist() == [1, 2, 3]
    assert cached("thing", 1, lambda: None, lambda arrays: True)["numbers"].tolist() == [
        1,
        2,
        3,
    ]  # and was repaired


@pytest.mark.parametrize(
    "what, got",
    [
        ("deflate bomb", "a compressed member meta.npy"),
        ("bzip2 bomb", "a member in compression 12"),
        ("many members", "a table of contents of"),
        ("one in the other", "bytes in a file of"),
        ("a name that leads out", "a member '../../meta.npy'"),
        ("negative shape", "meta.npy of shape (-2, -4)"),
        ("8 TB", "meta.npy of shape (1099511627776,)"),
        ("elements without size", "meta.npy of dtype <U0"),
        ("Fortran order", "not little-endian in C order"),
        ("big-endian", "not little-endian in C order"),
        ("object array", "meta.npy of dtype object"),
        ("a header of 4 GB", "with a header of 4294967295 bytes"),
    ],
)
def test_each_rule_of_reading_arrays_is_the_one_that_refuses(tmp_path, what, got):
    """Even where the caller accepts the array's name and kind."""
    (path := tmp_path / "bad.npz").write_bytes(ARRAYS[what])
    with pytest.raises(ValueError, match=re.escape(got)):
        read_members(path, re.compile(r"meta\.npy|state.*"), 1 << 30, "fuU")


def test_a_cache_of_another_recipe_or_of_odd_arrays_is_built_anew(tmp_path):
    def ask(recipe, value, fits=lambda arrays: True):
        return cached("thing", recipe, lambda: {"numbers": np.full(3, value, np.uint8)}, fits)[
            "numbers"
        ][0]

    assert (ask(1, 1), ask(2, 2)) == (1, 2)
    first, second = sorted(
        (tmp_path / "cache" / "refmaml").iterdir(), key=lambda p: p.stat().st_mtime_ns
    )
    second.write_bytes(first.read_bytes())
    assert ask(2, 3) == 3 and ask(2, 4, lambda arrays: False) == 4


@pytest.mark.parametrize(
    "read",
    [
        load,
        lambda p: golden.read_arrays(p, {"sha256": "", "arrays": {}}),
        lambda p: drawings.read_drawings([p], 28, "nearest"),
    ],
    ids=["checkpoint", "golden", "omniglot"],
)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse 8 TB", "no permission"])
def test_anything_but_a_readable_regular_file_is_refused_without_a_wait(tmp_path, read, kind):
    path = tmp_path / "images_background.zip"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch(0o000 if kind == "no permission" else 0o644)
        os.truncate(path, 0 if kind == "no permission" else 1 << 42)
    answered(path, read)


def test_a_manifest_too_large_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b"[" + b"{}," * (1 << 21) + b"{}]")
    answered(tmp_path / "manifest.json", lambda p: golden.read_manifest(p.parent))
    manifest = packed(
        [
            ("manifest.npy", npy(np.zeros(1 << 20, np.uint8))),
            ("meta.npy", npy(np.zeros(2))),
            ("curve.npy", npy(np.zeros((0, 5)))),
        ]
    )
    (tmp_path / "c.npz").write_bytes(manifest)
    assert "manifest.npy of" in answered(tmp_path / "c.npz", load)


# ---- Omniglot ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ARCHIVES)
def test_a_bad_archive_is_refused(tmp_path, what):
    (path := tmp_path / "images_background.zip").write_bytes(ARCHIVES[what])
    line = answered(path, lambda p: drawings.read_drawings([p], 28, "nearest"))
    assert "bzip2" not in what or "a member in compression 12" in line


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_a_drawing_twice_is_refused(tmp_path):
    (path := tmp_path / "images_background.zip").write_bytes(packed([*drawn(), drawn()[0]]))
    assert "a member twice" in answered(path, lambda p: drawings.read_drawings([p], 28, "nearest"))


def test_a_link_in_an_archive_is_never_followed(tmp_path):
    link = zipfile.ZipInfo(MEMBER)
    link.external_attr = 0o120777 << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for name, data in drawn()[1:]:
            archive.writestr(name, data)
    (path := tmp_path / "images_background.zip").write_bytes(stream.getvalue())
    assert MEMBER in answered(path, lambda p: drawings.read_drawings([p], 28, "nearest"))


@pytest.mark.parametrize(
    "kind", ["a pipe", "a link to nowhere", "a link in a circle", "a link to a device"]
)
def test_a_folder_with_something_else_for_a_drawing_is_refused(tmp_path, kind):
    for part in drawings.SETS:
        for name, data in drawn():
            (file := tmp_path / name.replace("images_background", part)).parent.mkdir(
                parents=True, exist_ok=True
            )
            file.write_bytes(data)
    bad = tmp_path / MEMBER
    bad.unlink()
    {
        "a pipe": lambda: os.mkfifo(bad),
        "a link to nowhere": lambda: bad.symlink_to("nowhere"),
        "a link in a circle": lambda: bad.symlink_to(bad),
        "a link to a device": lambda: bad.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(DataError, match="images_background.*: expected .*, got .+"):
        Omniglot(tmp_path)


# ---- through the command line --------------------------------------------------------


def test_a_bad_checkpoint_ends_the_program_with_one_line_and_status_2_in_time_and_room(tmp_path):
    """In a process of its own, so that no other test has used its memory."""
    for what in (
        "deflate bomb",
        "bzip2 bomb",
        "nested zips",
        "8 TB",
        "many members",
        "a header of 4 GB",
    ):
        (tmp_path / f"{what}.npz").write_bytes(ARRAYS[what])
    program = (
        "import sys, time\nfrom refmaml.bench.memory import reset_peak, resident\nfrom "
        "refmaml.cli import main\n"
        "main(['evaluate', 'nothing.npz'])\n"
        "for path in sys.argv[1:]:\n"
        "    before, began = reset_peak(), time.process_time()\n"
        "    status = main(['evaluate', path])\n"
        "    used = (resident('VmHWM') or 0) - (before or 0)\n"
        "    print(status, time.process_time() - began < 1, used < 64 << 20)"
    )
    names = sorted(str(p) for p in tmp_path.glob("*.npz"))
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout.splitlines() == ["2 True True"] * len(names) == ["2 True True"] * 6
    lines = done.stderr.splitlines()[1:]
    assert len(lines) == 6
    assert all(
        line.startswith(f"refmaml: {name}: expected a checkpoint")
        for line, name in zip(lines, names, strict=True)
    )


def test_a_large_good_checkpoint_costs_its_size_and_no_more(tmp_path):
    """The arrays are held once, and the curve as a table, not as objects."""
    P, n = 1 << 20, 1 << 19
    rows = np.stack([np.arange(1, n + 1), *np.ones((len(Row._fields) - 1, n))], axis=1)
    save(
        tmp_path / "c.npz",
        Progress(np.zeros(P), {"m": np.zeros(P), "v": np.zeros(P)}, Rows.of(rows), n),
        {},
    )
    program = (
        "import sys\nfrom refmaml.bench.memory import reset_peak, resident\nfrom "
        "refmaml.training.checkpoint import load\n"
        "before = reset_peak()\nload(sys.argv[1])\nprint((resident('VmHWM') or 0) - (before or 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "c.npz"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert int(done.stdout) < (tmp_path / "c.npz").stat().st_size + ROOM


def test_data_that_is_bad_is_one_line_of_train(tmp_path, capsys):
    (tmp_path / "images_background.zip").write_bytes(ARCHIVES["many members"])
    (tmp_path / "images_evaluation.zip").write_bytes(b"")
    assert (
        main(
            [
                "train",
                "--data",
                "omniglot",
                "--data-root",
                str(tmp_path),
                "--kernels",
                "reference",
                "--quiet",
            ]
        )
        == 2
    )
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1
        and "images_background.zip: expected a zip archive of Omniglot, got a table of contents of"
        in err
    )
    assert not (tmp_path / "runs").exists()
