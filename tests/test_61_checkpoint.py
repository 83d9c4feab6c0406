"""Checkpoints: complete or absent, exact, and refused if any part is wrong."""

import io
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from bad_files import header

from refmaml.errors import DataError
from refmaml.training import Progress, Row
from refmaml.training import checkpoint as file_format
from refmaml.training.checkpoint import load, save
from refmaml.training.files import durable_write, make_folder

CONFIG = {"net": "mlp", "hidden": [4, 4], "lr": 1e-3, "frozen": None}


def progress(steps=3):
    rng = np.random.default_rng(0)
    meta, m, v = rng.standard_normal((3, 6)).astype(np.float32)
    meta[:2] = -0.0, 1e-45  # a negative zero, a subnormal number
    rows = [Row(t, 1 / t, float("nan"), 0.1 * t, 0.3 * t) for t in range(1, steps + 1)]
    return Progress(meta, {"m": m, "v": v}, rows, steps)


def contents(p):
    """All that a Progress holds, as bytes."""
    return (
        p.step,
        p.meta.dtype,
        p.meta.tobytes(),
        {k: a.tobytes() for k, a in p.state.items()},
        np.array(p.rows).tobytes(),
    )


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "checkpoint.npz", progress(), CONFIG)
    return tmp_path / "checkpoint.npz"


def refusal(path, data=None):
    """The message with which `load` refuses a file: one line.

    data  bytes that are written to the file first
    """
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        load(path)
    line = str(caught.value)
    assert (
        "\n" not in line and line.startswith(f"{path}: expected a checkpoint") and ", got " in line
    )
    return line


def packed(members, **options):
    """A zip of [(name, bytes or array), ...]."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **options) as archive:
        for name, value in members:
            if not isinstance(value, bytes):
                array = io.BytesIO()
                np.save(array, value)
                value = array.getvalue()
            archive.writestr(name, value)
    return stream.getvalue()


def members(path):
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def test_a_checkpoint_is_loaded_bit_for_bit(path):
    now, config = load(path)
    assert contents(now) == contents(progress()) and config == CONFIG
    assert (
        now.meta.flags.writeable and isinstance(now.rows[0], Row) and type(now.rows[0].step) is int
    )


def test_an_optimiser_without_state_and_a_run_without_steps_are_loaded_as_saved(tmp_path):
    save(tmp_path / "c.npz", Progress(np.ones(2), {}), {})
    now, config = load(tmp_path / "c.npz")
    assert (now.step, now.state, now.rows, now.meta.tolist(), config) == (0, {}, [], [1.0, 1.0], {})


def test_rows_after_the_checkpoints_step_are_left_out(tmp_path):
    p = progress(5)
    save(tmp_path / "c.npz", Progress(p.meta, p.state, p.curve, 2), CONFIG)
    assert len(load(tmp_path / "c.npz")[0].rows) == 2


def test_cg_residuals_are_kept(tmp_path):
    p = progress()
    rows = [p.curve[0], *(row._replace(cg_residual=0.5) for row in p.curve[1:])]
    save(tmp_path / "c.npz", Progress(p.meta, p.state, rows, 3), CONFIG)
    assert np.array(load(tmp_path / "c.npz")[0].rows).tobytes() == np.array(rows).tobytes()


def test_any_single_corrupt_byte_is_refused_or_changes_nothing(path):
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            now, config = load(path)
        except DataError:
            refused += 1
        else:  # for example a time stamp in the zip
            assert contents(now) == contents(progress()) and config == CONFIG, place
    assert refused > 0.7 * len(whole)


def test_a_corrupt_byte_in_the_numbers_is_refused(path):
    whole = path.read_bytes()
    place = whole.index(progress().state["v"].tobytes()) + 5
    assert "CRC" in refusal(path, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])


def test_numbers_exchanged_under_a_valid_zip_are_refused_by_the_sha256(path):
    exchanged = [(n, progress().meta + 1 if n == "meta.npy" else data) for n, data in members(path)]
    assert "contents that differ from their sha256" in refusal(path, packed(exchanged))


def test_a_file_cut_short_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        refusal(path, whole[:length])


def test_a_compressed_member_is_refused_before_it_is_unpacked(path):
    bomb = packed([("meta.npy", np.zeros(1 << 18))], compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 16
    assert "a compressed member meta.npy" in refusal(path, bomb)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused(path):
    assert "a member twice" in refusal(
        path, packed([*members(path), ("meta.npy", np.zeros(6, np.float32))])
    )


@pytest.mark.parametrize(
    "name", ["../meta.npy", "meta", "weights.npy", "state.M.npy", "state..npy"]
)
def test_a_member_with_another_name_is_refused(path, name):
    assert "a member '" in refusal(path, packed([*members(path), (name, np.zeros(1))]))


@pytest.mark.parametrize(
    "text, got",
    [
        ("(", "got "),  # tokenize.TokenError from NumPy's parser
        (
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}",
            "of shape (1099511627776,) in",
        ),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", "got "),
        ("{'descr': '|O', 'fortran_order': False, 'shape': ()}", "of dtype object"),
        ("{'descr': '<f8'}", "got "),
    ],
)
def test_a_wrong_header_is_refused(path, text, got):
    assert got in refusal(path, packed([("meta.npy", header(text))]))


def test_nothing_in_the_file_is_executed(path, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    array = io.BytesIO()
    np.save(array, np.array([Payload()], dtype=object), allow_pickle=True)
    refusal(path, packed([("meta.npy", array.getvalue())]))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"PK\x03\x04",
        packed([]),
        packed([("meta.npy", b"")]),
        packed([("meta.npy", np.ones(3))]),
    ],
)
def test_a_foreign_file_is_refused(path, data):
    refusal(path, data)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "nothing.npz").endswith("got no such file")
    refusal(tmp_path)


def test_a_file_beyond_the_limit_is_refused(path, monkeypatch):
    monkeypatch.setattr(file_format, "LIMIT", 100)
    assert "where 100 is the limit" in refusal(path)


@pytest.mark.parametrize(
    "change, got",
    [
        (lambda p: Progress(p.meta, p.state, p.curve, 2.0), "at step 2.0"),
        (lambda p: Progress(p.meta.reshape(2, 3), p.state, p.curve, 3), "shape (2, 3)"),
        (
            lambda p: Progress(p.meta, {"m": np.zeros(5, np.float32)}, p.curve, 3),
            "state.m float32 of shape (5,)",
        ),
        (lambda p: Progress(p.meta, {"m": np.zeros(6)}, p.curve, 3), "state.m float64"),
        (lambda p: Progress(np.arange(6), {}, p.curve, 3), "dtype int64"),
    ],
)
def test_a_file_with_a_right_sha256_and_wrong_contents_is_refused(
    tmp_path, monkeypatch, change, got
):
    monkeypatch.setattr(Progress, "rows", property(lambda p: p.curve))
    save(tmp_path / "c.npz", change(progress()), CONFIG)
    assert got in refusal(tmp_path / "c.npz")


def test_a_checkpoint_of_another_version_is_refused(path, monkeypatch):
    monkeypatch.setattr(file_format, "SCHEMA", "refmaml-checkpoint-0")
    save(path, progress(), CONFIG)
    monkeypatch.undo()
    assert "no schema refmaml-checkpoint-1" in refusal(path)


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, monkeypatch, broken):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(
        DataError, match="checkpoint.npz: expected a file that can be .*, got No space left"
    ):
        save(path, progress(5), CONFIG)
    monkeypatch.undo()
    assert contents(load(path)[0]) == contents(progress()) and os.listdir(path.parent) == [
        path.name
    ]


def test_file_and_folder_are_on_disk_before_the_write_counts_as_done(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("replace"), replace(*a)))
    with durable_write(tmp_path / "file") as file:
        file.write(b"text")
    assert order == ["fsync", "replace", "fsync"]


def test_a_killed_process_leaves_a_whole_checkpoint_and_its_litter_is_cleared(path):
    program = (
        "import sys; import numpy as np; from refmaml.training import Progress; "
        "from refmaml.training.checkpoint import save; print(flush=True)\n"
        "while True: save(sys.argv[1], Progress(np.zeros(200_000), {}), {})"
    )
    for delay in (0.003, 0.011, 0.017):
        with subprocess.Popen(
            [sys.executable, "-c", program, path], stdout=subprocess.PIPE
        ) as child:
            child.stdout.readline()
            time.sleep(delay)
            child.send_signal(signal.SIGKILL)
        load(path)
    make_folder(path.parent)
    assert os.listdir(path.parent) == [path.name]


def test_clearing_litter_spares_other_files_and_what_a_living_process_writes(tmp_path):
    litter = f".checkpoint.npz.{'1f' * 16}.part"
    for name in (litter, ".checkpoint.npz.1f.part", ".notes.part", "checkpoint.npz"):
        (tmp_path / name).touch()
    with durable_write(tmp_path / "curve.csv"):
        make_folder(tmp_path)  # the temporary file of curve.csv is locked by its writer
    assert sorted(os.listdir(tmp_path)) == [
        ".checkpoint.npz.1f.part",
        ".notes.part",
        "checkpoint.npz",
        "curve.csv",
    ]
