"""Monitors: a picture that is always complete, and event files for TensorBoard."""

import math
import struct
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from clock import Clock
from command_line import SMALL
from PIL import Image

from refmaml import errors
from refmaml.cli import main
from refmaml.errors import ArgumentError, DataError
from refmaml.training import Evaluation, Progress, Row, monitor
from refmaml.training.monitor import (
    EVENT_INTERVAL,
    INTERVAL,
    MAX_DRAW_FRACTION,
    TAGS,
    Events,
    Picture,
)

pytestmark = pytest.mark.usefixtures("folder")

needs_tensorboardx = pytest.mark.skipif(
    find_spec("tensorboardX") is None,
    reason="tensorboardX is not installed: pip install 'refmaml[tensorboard]'",
)
RESULT = Evaluation("accuracy", np.array([0.5, 1.0]))


def progress(steps, **more):
    rows = [Row(t, 2.0 / t, 0.1 * t, 3.0, 0.5 * t)._replace(**more) for t in range(1, steps + 1)]
    return Progress(np.zeros(2), {}, rows, steps)


# ---- the picture ---------------------------------------------------------------------


def drawings(monkeypatch, clock, cost, step_time, total):
    """The times at which a Picture is drawn.

    Drawing takes `cost` seconds, a meta-step `step_time`, and the run `total`.
    """
    times = []

    def draw(path, rows, title, held_out=()):
        times.append(clock.now)
        clock.now += cost

    monkeypatch.setattr(monitor, "write_png", draw)
    picture = Picture(Path("p.png"), "", progress(0), clock)
    times.clear()
    while clock.now < total:
        clock.now += step_time
        picture(progress(1))
    return times


def test_a_cheap_picture_is_drawn_every_few_seconds(monkeypatch):
    times = drawings(monkeypatch, Clock(), cost=0.01, step_time=0.5, total=100)
    assert np.all(np.diff(times) >= INTERVAL) and np.all(np.diff(times) <= INTERVAL + 1)


def test_drawing_takes_a_small_share_of_the_time_however_long_it_takes(monkeypatch):
    for cost in (0.5, 2.0):
        times = drawings(monkeypatch, Clock(), cost, step_time=0.1, total=2000)
        assert len(times) > 5 and cost * len(times) <= MAX_DRAW_FRACTION * 2000 + cost


def test_a_run_with_plot_draws_its_curve_at_once_and_at_the_end(folder):
    def size(path):
        with Image.open(path) as picture:
            picture.load()
            return picture.size

    Picture(folder / "empty.png", "nothing yet", progress(0))
    assert main(["train", *SMALL, "--steps", "3", "--out", "run", "--plot", "seen.png"]) == 0
    assert size("seen.png") == size("run/curve.png") == size("empty.png")
    assert main(["train", *SMALL, "--steps", "3", "--out", "other", "--plot"]) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["empty.png", "other", "run", "seen.png"]


def test_a_picture_that_cannot_be_written_is_an_error_at_the_start_only(folder, capsys):
    assert (
        main(["train", *SMALL, "--steps", "3", "--out", "run", "--plot", "nowhere/seen.png"]) == 2
    )
    assert capsys.readouterr().err.startswith(
        "refmaml: --plot: expected a file that can be written, got nowhere/seen.png: "
    )
    clock = Clock()
    picture = Picture(folder / "p.png", "", progress(0), clock)
    (folder / "p.png").unlink()
    (folder / "p.png").mkdir()
    for _ in range(3):
        clock.now += 1000
        picture(progress(1))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.endswith("; training continues without the picture\n")
    picture.conclude(progress(1), None)
    assert capsys.readouterr().err == ""


def test_a_picture_that_fails_at_the_end_costs_no_result(folder, capsys, monkeypatch):
    write = monitor.write_png

    def lost(path, rows, title="", held_out=()):
        if held_out:
            raise DataError(f"{path}: expected a file that can be written, got planted")
        write(path, rows, title)

    monkeypatch.setattr(monitor, "write_png", lost)
    assert main(["train", *SMALL, "--steps", "3", "--out", "run", "--plot", "seen.png"]) == 0
    out, err = capsys.readouterr()
    assert (
        "held-out tasks" in out
        and err == "refmaml: seen.png: expected a file that can be written, got planted\n"
    )


def test_only_pngs_are_drawn(capsys):
    assert main(["train", *SMALL, "--steps", "3", "--plot", "curve.pdf"]) == 2
    assert (
        capsys.readouterr().err
        == "refmaml: --plot: expected a path that ends in .png, got 'curve.pdf'\n"
    )


# ---- event files ---------------------------------------------------------------------


def events_in(folder):
    """Every event of the files in a folder.

    A TFRecord is a length, its checksum, that many bytes, and their checksum.
    """
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(Path(folder).iterdir()):  # in the order in which TensorBoard reads them
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += length + 16
        assert at == len(data)
    return found


def scalars(events):
    """{step: {tag: value}}."""
    found = {}
    for event in events:
        for value in event.summary.value:
            found.setdefault(event.step, {})[value.tag] = value.simple_value
    return found


@needs_tensorboardx
def test_events_hold_each_figure_of_each_step_and_the_held_out_result(folder):
    clock = Clock()
    events = Events(folder / "tb", progress(0), clock)
    for step in (1, 2, 3):
        clock.now += 1
        events(progress(step))
    events.conclude(progress(3), RESULT)
    events.close()
    found = scalars(events_in("tb"))
    assert found.keys() == {1, 2, 3} and found[2].keys() == {
        "query/loss",
        "query/accuracy",
        "gradient/norm",
    } < set(TAGS.values())
    single = np.float32  # as TensorBoard keeps numbers
    assert [found[s]["query/loss"] for s in (1, 2)] == [2.0, 1.0] and found[2][
        "query/accuracy"
    ] == single(0.2)
    assert found[3]["held-out/accuracy"] == 0.75 and found[3]["held-out/interval"] == single(
        RESULT.interval
    )


@needs_tensorboardx
def test_a_cg_residual_has_its_event_and_a_regression_no_accuracy(folder):
    events = Events(folder / "tb", progress(0))
    events(progress(1, cg_residual=0.25, accuracy=math.nan))
    events.close()
    assert scalars(events_in("tb"))[1] == {
        "query/loss": 2.0,
        "gradient/norm": 3.0,
        "gradient/cg_residual": 0.25,
    }


@needs_tensorboardx
def test_of_quick_steps_some_have_events_and_the_last_always(folder):
    clock = Clock()
    events = Events(folder / "tb", progress(0), clock)
    for step in range(1, 101):
        clock.now += EVENT_INTERVAL / 10
        events(progress(step))
    events.close()
    steps = sorted(scalars(events_in("tb")))
    assert steps[0] == 1 and steps[-1] == 100 and 9 <= len(steps) <= 13


@needs_tensorboardx
def test_a_resumed_run_marks_the_steps_that_tensorboard_drops(capsys, monkeypatch):
    second = time.time()
    monkeypatch.setattr(time, "time", lambda: second)  # both start in the same second
    assert main(["train", *SMALL, "--steps", "4", "--out", "run", "--tensorboard", "tb"]) == 0
    assert (
        main(
            ["train", "--resume", "--out", "run", "--steps", "6", "--quiet", "--tensorboard", "tb"]
        )
        == 0
    )
    events = events_in("tb")
    assert (
        sorted(scalars(events))[-1] == 6
        and {"held-out/loss", "held-out/interval"} <= scalars(events)[6].keys()
    )
    starts = [event.step for event in events if event.session_log.status == 1]
    assert starts == [1, 5]


def test_without_tensorboardx_one_line_names_it_before_any_file_is_made(
    folder, capsys, monkeypatch
):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    assert main(["train", *SMALL, "--steps", "2", "--out", "run", "--tensorboard", "tb"]) == 2
    assert capsys.readouterr().err == (
        "refmaml: --tensorboard: expected tensorboardX to be installed (pip install "
        "'refmaml[tensorboard]'), got nothing of that name\n"
    )
    assert list(folder.iterdir()) == []
    with pytest.raises(ArgumentError):
        Events("tb", progress(0))


@needs_tensorboardx
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_fills_ends_the_events_and_not_the_run(folder, capsys):
    clock = Clock()
    events = Events(folder / "tb", progress(0), clock)
    with open("/dev/full", "wb") as full:
        records = events.writer._py_recordio_writer
        records._writer.close()
        records._writer = full
        for step in range(1, 51):  # more than any queue holds
            clock.now += INTERVAL
            events(progress(step))
        events.conclude(progress(50), RESULT)
        events.close()
        full.raw.close()  # the buffered events cannot be written
    assert capsys.readouterr().err == (
        f"refmaml: {folder / 'tb'}: expected a folder that can be written, got No space left "
        "on device; "
        "training continues without events\n"
    )


@needs_tensorboardx
def test_events_are_on_disk_within_seconds(folder):
    clock = Clock()
    events = Events(folder / "tb", progress(0), clock)
    for step in (1, 2):
        clock.now += INTERVAL
        events(progress(step))
    assert scalars(events_in("tb")).keys() == {1, 2}
    events.close()


@needs_tensorboardx
def test_a_folder_for_events_that_cannot_be_written_is_one_line(folder):
    (folder / "file").touch()
    with pytest.raises(
        DataError, match="file/tb: expected a folder that can be written, got Not a directory"
    ):
        Events("file/tb", progress(0))
