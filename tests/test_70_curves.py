"""`refmaml curves`: the error of several starts over inner steps."""

import csv
import re

import numpy as np
import pytest

import refmaml as rm
from refmaml.cli import main
from refmaml.training import checkpoint
from refmaml.training.evaluation import HELD_OUT_STEP

pytestmark = pytest.mark.slow

SMALL = [
    *("train", "--data", "sinusoid", "--hidden", "6", "--tasks", "4", "--steps", "2"),
    *("--eval-tasks", "2", "--kernels", "reference"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: checkpoint} of three small runs on sine waves."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, method, seed in (("maml", "maml", 0), ("one", "erm", 1), ("two", "erm", 2)):
        out = folder / name
        assert main([*SMALL, "--method", method, "--seed", str(seed), "--out", str(out)]) == 0
        found[name] = str(out / "checkpoint.npz")
    return found


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    """The folder with the curves of the three runs."""
    out = tmp_path_factory.mktemp("curves")
    options = ["--steps", "3", "--tasks", "30", "--out", str(out)]
    assert main(["curves", *runs.values(), *options]) == 0
    return out


def table(folder):
    """{column: numbers} of curves.csv."""
    with open(folder / "curves.csv") as file:
        head, *rows = csv.reader(file)
    return dict(zip(head, np.array(rows, float).T, strict=True))


def test_every_start_has_a_curve_inside_and_outside_and_there_is_a_picture(drawn):
    found = table(drawn)
    starts = ("maml", "erm", "erm 2", "untrained", "best pretrained")
    columns = [f"{name}, {place}" for place in ("inside", "outside") for name in starts]
    assert list(found) == ["steps", *columns]
    assert found["steps"].tolist() == [0, 1, 2, 3]
    assert (drawn / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_errors_are_those_of_maml_s_inner_loop(drawn, runs):
    net = rm.mlp((1, 6, 1), kernels=rm.kernels.reference())
    theta = checkpoint.load(runs["maml"])[0].meta
    inside = rm.Sinusoids().sample(30, step=HELD_OUT_STEP)
    far = rm.Sinusoids(x_range=(5.0, 8.0)).sample(30, step=HELD_OUT_STEP)
    found = table(drawn)
    for k in range(4):
        phi = theta[None]
        if k:
            phi = rm.MAML(0.01, k).adapt(net, theta, inside.x_support, inside.y_support)
        for place, batch in (("inside", inside), ("outside", far)):
            expected = net.loss(phi, batch.x_query, batch.y_query).mean()
            assert found[f"maml, {place}"][k] == pytest.approx(expected, rel=1e-5)  # float32


def test_the_points_outside_are_of_the_same_waves():
    inside = rm.Sinusoids().sample(3, dtype=float)
    far = rm.Sinusoids(x_range=(5.0, 8.0)).sample(3, dtype=float)
    assert (far.x_query > 5).all() and (inside.x_query < 5).all()
    for t in range(3):  # y = a sin x + b cos x fits the points of both
        x = np.concatenate([inside.x_support[t, :, 0], far.x_query[t, :, 0]])
        y = np.concatenate([inside.y_support[t, :, 0], far.y_query[t, :, 0]])
        _, left, *_ = np.linalg.lstsq(np.stack([np.sin(x), np.cos(x)], 1), y, rcond=None)
        assert left < 1e-20


def test_the_best_pretrained_start_is_no_worse_than_any(drawn):
    found = table(drawn)
    for place in ("inside", "outside"):
        best = found[f"best pretrained, {place}"]
        assert all((best <= found[f"{name}, {place}"] + 1e-12).all() for name in ("erm", "erm 2"))


@pytest.mark.parametrize("option", [["--steps", "0"], ["--tasks", "x"], ["--outside", "a", "b"]])
def test_a_wrong_option_is_refused_in_one_line(runs, option, tmp_path, capsys):
    assert main(["curves", runs["maml"], *option, "--out", str(tmp_path)]) == 2
    assert re.search(rf"{option[0]}: expected", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_runs_on_other_nets_are_refused(runs, tmp_path, capsys):
    out = tmp_path / "other"
    other = [*SMALL, "--hidden", "5", "--out", str(out)]
    assert main(other) == 0
    assert main(["curves", runs["maml"], str(out / "checkpoint.npz")]) == 2
    assert "expected the data and the net of" in capsys.readouterr().err


def test_pictures_have_an_error_in_place_of_a_loss(tmp_path):
    run = [
        *("train", "--channels", "4", "--tasks", "2", "--steps", "1", "--eval-tasks", "2"),
        *("--kernels", "reference", "--out", str(tmp_path / "run")),
    ]
    assert main(run) == 0
    options = ["--steps", "1", "--tasks", "3", "--out", str(tmp_path)]
    assert main(["curves", str(tmp_path / "run" / "checkpoint.npz"), *options]) == 0
    found = table(tmp_path)
    assert list(found) == ["steps", "maml, inside", "untrained, inside"]
    assert all(0 <= value <= 1 for value in found["maml, inside"])
