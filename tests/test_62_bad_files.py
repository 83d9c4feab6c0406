"""Files that somebody made to do harm: each is answered in one line, within a second, within 64 MB of its size, and nothing is lost."""
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

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
MEMBER = "images_background/Magi/character01/0001_01.png"


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def header(text, version=b"\x01\x00"):
    """A .npy of the given header and no data."""
    text = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little") + text


def npy(a):
    stream = io.BytesIO()
    np.save(stream, a)
    return stream.getvalue()


def packed(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows, extra=b""):
    """A one-bit PNG that says it has width x height pixels."""
    about = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + extra + chunk(b"IDAT", zlib.compress(bytes(rows), 9)) + chunk(b"IEND", b"")


def good_png():
    return png(105, 105, 15 * 105)


def drawn(first=None):
    """The members of an archive of one character, its first drawing given."""
    return [(f"images_background/Magi/character01/0001_{d:02d}.png", first if first and d == 1 else good_png()) for d in range(1, 21)]


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    return stream.getvalue()


def nested(levels=5):
    data = bytes(10 << 20)
    for _ in range(levels):
        data = packed([("meta.npy", data)], zipfile.ZIP_DEFLATED)
    return data


def one_in_the_other(members=130, size=1 << 20):
    """Members stored in one another's data, each whole and with a right checksum: one megabyte that is read 130 times."""
    names, data, sums = [f"state.m{i}.npy".encode() for i in range(members)], npy(np.zeros(size, np.uint8)), []
    for name in reversed(names):
        about = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0)
        whole = b"PK\x03\x04" + about + name + data
        sums, data = [(name, about, len(whole)), *sums], npy(np.frombuffer(whole, np.uint8))
    table = b"".join(b"PK\x01\x02\x14\0" + about + struct.pack("<HHHII", 0, 0, 0, 0, sums[0][2] - length) + name
                     for name, about, length in sums)
    return whole + table + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, members, members, len(table), len(whole), 0)


# Bytes of an .npz that no reader of arrays may take: {what: bytes}.
ARRAYS = {
    "empty": b"", "text": b"hello", "truncated": packed([("meta.npy", npy(np.zeros(1000)))])[:4000], "raw pickle": b"\x80\x04K\x01.",
    "object array": packed([("meta.npy", pickled())]),
    "deflate bomb": packed([("meta.npy", npy(np.zeros(1 << 25, np.uint8)))], zipfile.ZIP_DEFLATED),
    "bzip2 bomb": packed([("meta.npy", npy(np.zeros(1 << 25, np.uint8)))], zipfile.ZIP_BZIP2),
    "nested zips": nested(), "zip in a zip, stored": packed([("meta.npy", nested(1))]),
    "many members": packed([(f"state.m{i}.npy", b"") for i in range(30_000)]), "one in the other": one_in_the_other(),
    "a name that leads out": packed([("../../meta.npy", npy(np.zeros(3)))]),
    "an absolute name": packed([("/etc/meta.npy", npy(np.zeros(3)))]),
    "a name of control characters": packed([("meta\x1b[2J\n.npy", npy(np.zeros(3)))]),
    "8 TB": packed([("meta.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}"))]),
    "more elements than 64 bits": packed([("meta.npy", header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**62}, 8)}}"))]),
    "negative shape": packed([("meta.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -4)}") + bytes(64))]),
    "elements without size": packed([("meta.npy", header("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,)}"))]),
    "Fortran order": packed([("meta.npy", npy(np.asfortranarray(np.ones((2, 3)))))]),
    "big-endian": packed([("meta.npy", npy(np.ones(3, ">f8")))]),
    "a parenthesis": packed([("meta.npy", header("("))]), "brackets in brackets": packed([("meta.npy", header("[" * 117))]),
    "a header of 4 GB": packed([("meta.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100))]),
    "no fields": packed([("meta.npy", header("{}"))]), "structured": packed([("meta.npy", npy(np.zeros(2, "f4,f8")))]),
    "complex": packed([("meta.npy", npy(np.zeros(2, complex)))]),
}


def answered(path, read):
    """The one line that a file is refused with, in time and room; the folder stays as it is."""
    from time import process_time
    folder, began, before = sorted(os.listdir(path.parent)), process_time(), reset_peak()
    with pytest.raises(DataError) as caught:
        read(path)
    used = 0 if before is None else resident("VmHWM") - before           # None: this system does not say
    line = str(caught.value)
    assert process_time() - began < SECOND and used < ROOM + (path.stat().st_size if path.is_file() else 0)
    assert line.startswith(str(path)) and line.isprintable() and ", got " in line and sorted(os.listdir(path.parent)) == folder
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
    assert cached("thing", 1, lambda: {"numbers": kept["numbers"] + 1}, lambda arrays: True)["numbers"].tolist() == [1, 2, 3]
    assert cached("thing", 1, lambda: None, lambda arrays: True)["numbers"].tolist() == [1, 2, 3]        # and was repaired


@pytest.mark.parametrize("what, got", [
    ("deflate bomb", "a compressed member meta.npy"), ("bzip2 bomb", "a member in compression 12"),
    ("many members", "a table of contents of"), ("one in the other", "bytes in a file of"),
    ("a name that leads out", "a member '../../meta.npy'"),
    ("negative shape", "meta.npy of shape (-2, -4)"), ("8 TB", "meta.npy of shape (1099511627776,)"),
    ("elements without size", "meta.npy of dtype <U0"), ("Fortran order", "not little-endian in C order"),
    ("big-endian", "not little-endian in C order"),
    ("object array", "meta.npy of dtype object"), ("a header of 4 GB", "with a header of 4294967295 bytes")])
def test_each_rule_of_reading_arrays_is_the_one_that_refuses(tmp_path, what, got):
    """Even where the array's name and kind are wanted: nothing else stands between it and whoever asked."""
    (path := tmp_path / "bad.npz").write_bytes(ARRAYS[what])
    with pytest.raises(ValueError, match=re.escape(got)):
        read_members(path, re.compile(r"meta\.npy|state.*"), 1 << 30, "fuU")


def test_a_cache_of_another_recipe_or_of_odd_arrays_is_built_anew(tmp_path):
    def ask(recipe, value, fits=lambda arrays: True):
        return cached("thing", recipe, lambda: {"numbers": np.full(3, value, np.uint8)}, fits)["numbers"][0]
    assert (ask(1, 1), ask(2, 2)) == (1, 2)
    first, second = sorted((tmp_path / "cache" / "refmaml").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    second.write_bytes(first.read_bytes())
    assert ask(2, 3) == 3 and ask(2, 4, lambda arrays: False) == 4


@pytest.mark.parametrize("read", [load, lambda p: golden.read_arrays(p, {"sha256": "", "arrays": {}}),
                                  lambda p: drawings.read_drawings([p], 28, "nearest")], ids=["checkpoint", "golden", "omniglot"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse 8 TB", "no permission"])
def test_what_is_no_readable_regular_file_is_refused_and_never_waited_for(tmp_path, read, kind):
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
    manifest = packed([("manifest.npy", npy(np.zeros(1 << 20, np.uint8))), ("meta.npy", npy(np.zeros(2))),
                       ("curve.npy", npy(np.zeros((0, 5))))])
    (tmp_path / "c.npz").write_bytes(manifest)
    assert "manifest.npy of" in answered(tmp_path / "c.npz", load)


# ---- Omniglot ------------------------------------------------------------------------------------------------------------

TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30 << 20), 9))
ARCHIVES = {
    "a picture of 30,000 x 30,000 pixels": packed(drawn(png(30_000, 30_000, 1000))),
    "a picture of 2^31 x 2^31 pixels": packed(drawn(png(2**31 - 1, 2**31 - 1, 1000))),
    "a picture of no pixels": packed(drawn(png(0, 0, 10))),
    "a text that unpacks to 30 MB": packed(drawn(png(105, 105, 1575, TEXT_BOMB))),
    "a picture that unpacks to too much": packed(drawn(bytes(1 << 25)), zipfile.ZIP_DEFLATED),
    "pictures in bzip2": packed(drawn(bytes(1 << 25)), zipfile.ZIP_BZIP2),
    "all together too much": packed([*drawn(), *((f"{i}.bin", bytes(1 << 24)) for i in range(5))], zipfile.ZIP_DEFLATED),
    "many members": packed([*drawn(), *((f"{i}", b"") for i in range(70_000))]),
    "a name that leads out": packed([*drawn(), ("../../etc/passwd", b"")]),
    "a name that leads out on the way": packed([*drawn(), ("images_background/../x/character01/1.png", good_png())]),
    "an absolute name": packed([*drawn(), ("/etc/passwd", b"")]),
    "a name of control characters": packed([*drawn(), ("images_background/\x1b[2J\n/c/1.png", b"")]),
    "a backslash": packed([*drawn(), ("images_background\\..\\x", b"")]),
    "21 drawings": packed([*drawn(), (MEMBER.replace("01.png", "21.png"), good_png())]),
    "another PNG's colours": packed(drawn(good_png().replace(b"\x01\0\0\0\0", b"\x07\x09\0\0\0", 1))),
}


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


@pytest.mark.parametrize("kind", ["a pipe", "a link to nowhere", "a link in a circle", "a link to a device"])
def test_a_folder_with_something_else_for_a_drawing_is_refused(tmp_path, kind):
    for part in drawings.SETS:
        for name, data in drawn():
            (file := tmp_path / name.replace("images_background", part)).parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    bad = tmp_path / MEMBER
    bad.unlink()
    {"a pipe": lambda: os.mkfifo(bad), "a link to nowhere": lambda: bad.symlink_to("nowhere"),
     "a link in a circle": lambda: bad.symlink_to(bad), "a link to a device": lambda: bad.symlink_to("/dev/zero")}[kind]()
    with pytest.raises(DataError, match="images_background.*: expected .*, got .+"):
        Omniglot(tmp_path)


# ---- through the command line ----------------------------------------------------------------------------------------------

def test_a_bad_checkpoint_ends_the_program_with_one_line_and_status_2_in_time_and_room(tmp_path):
    """As a process of its own, so that its memory is its own; an untouched process is what it is held against."""
    for what in ("deflate bomb", "bzip2 bomb", "nested zips", "8 TB", "many members", "a header of 4 GB"):
        (tmp_path / f"{what}.npz").write_bytes(ARRAYS[what])
    program = ("import sys, time\nfrom refmaml.bench.memory import reset_peak, resident\nfrom refmaml.cli import main\n"
               "main(['evaluate', 'nothing.npz'])\n"
               "for path in sys.argv[1:]:\n"
               "    before, began = reset_peak(), time.process_time()\n"
               "    status = main(['evaluate', path])\n"
               "    used = (resident('VmHWM') or 0) - (before or 0)\n"
               "    print(status, time.process_time() - began < 1, used < 64 << 20)")
    names = sorted(str(p) for p in tmp_path.glob("*.npz"))
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    assert done.stdout.splitlines() == ["2 True True"] * len(names) == ["2 True True"] * 6
    lines = done.stderr.splitlines()[1:]
    assert len(lines) == 6
    assert all(line.startswith(f"refmaml: {name}: expected a checkpoint") for line, name in zip(lines, names, strict=True))


def test_a_large_good_checkpoint_costs_its_size_and_no_more(tmp_path):
    """Its arrays once, and the curve as a table rather than as objects."""
    P, n = 1 << 20, 1 << 19
    rows = np.stack([np.arange(1, n + 1), *np.ones((len(Row._fields) - 1, n))], axis=1)
    save(tmp_path / "c.npz", Progress(np.zeros(P), {"m": np.zeros(P), "v": np.zeros(P)}, Rows.of(rows), n), {})
    program = ("import sys\nfrom refmaml.bench.memory import reset_peak, resident\nfrom refmaml.training.checkpoint import load\n"
               "before = reset_peak()\nload(sys.argv[1])\nprint((resident('VmHWM') or 0) - (before or 0))")
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "c.npz"], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    assert int(done.stdout) < (tmp_path / "c.npz").stat().st_size + ROOM


def test_data_that_is_bad_is_one_line_of_train(tmp_path, capsys):
    (tmp_path / "images_background.zip").write_bytes(ARCHIVES["many members"])
    (tmp_path / "images_evaluation.zip").write_bytes(b"")
    assert main(["train", "--data", "omniglot", "--data-root", str(tmp_path), "--kernels", "reference", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "images_background.zip: expected a zip archive of Omniglot, got a table of contents of" in err
    assert not (tmp_path / "runs").exists()
