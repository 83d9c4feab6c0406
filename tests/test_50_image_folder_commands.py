"""Nets and the command line on one's own pictures."""

import numpy as np
import pytest
from image_folders import PLAIN, write

import refmaml as rm
from refmaml.cli import main
from refmaml.tasks import ImageFolder

pytestmark = pytest.mark.usefixtures("table_cache")


def test_a_net_takes_pictures_in_colour(tmp_path):
    data = ImageFolder(write(tmp_path, 5), **PLAIN, size=16, color=True)
    net = rm.conv4(n_way=3, channels=4, image=(3, 16, 16))
    out = rm.MAML(0.1).meta_gradient(net, net.init(0), data.sample(2, 3, 1, 2))
    assert np.isfinite(out.grad).all() and 0 <= out.accuracy <= 1


def train(root, *more):
    small = ["--n-way", "2", "--k-query", "2", "--tasks", "2", "--steps", "2"]
    small += [] if "mlp" in more else ["--channels", "2"]
    return main(
        ["train", "--data", "folder", "--data-root", str(root), "--kernels", "reference", "--quiet"]
        + [*small, "--eval-tasks", "3", *more]
    )


def test_the_command_line_trains_on_a_folder_and_evaluates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "root", 10)
    assert train(root, "--size", "16", "--color", "--out", "run") == 0
    net = ["--train-classes", "0.5", "--validation-classes", "2", "--net", "mlp", "--hidden", "3"]
    assert train(root, "--out", "other", *net, "--invert", "--rotations", "per_task") == 0
    capsys.readouterr()
    judge = ["evaluate", "run/checkpoint.npz", "--tasks", "3", "--data-root", str(root)]
    assert main(judge) == 0
    assert main([*judge, "--split", "validation"]) == 0
    assert capsys.readouterr().out.count("maml on folder: accuracy") == 2


def test_a_net_trained_on_glyphs_is_judged_on_ones_own_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "root", 10)
    assert train(root, "--out", "run") == 0  # 28 x 28 in grey, as glyphs have
    from refmaml.training import checkpoint

    now, config = checkpoint.load("run/checkpoint.npz")
    glyphs = config | {"data": "glyphs", "train_classes": 1100, "validation_classes": 100}
    checkpoint.save(tmp_path / "glyphs.npz", now, glyphs)
    more = ["--tasks", "3", "--data", "folder", "--data-root", str(root)]
    capsys.readouterr()
    assert main(["evaluate", "glyphs.npz", *more]) == 0
    assert "maml on folder: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--data", "folder"], "--data-root: expected the folder of the pictures, got nothing"),
        (["--data", "folder", "--data-root", "nowhere"], "nowhere: expected a folder with"),
        (["--data", "glyphs", "--size", "16"], "--size: expected --data folder beside it"),
        (["--data", "glyphs", "--train-classes", "5"], "--train-classes: expected --data omniglot"),
        (["--data", "folder", "--train-classes", "1.5"], "--train-classes: expected an integer"),
        (["--data", "folder", "--split-by", "alphabets"], "--split-by: expected --data omniglot"),
    ],
)
def test_command_lines_that_do_not_fit_are_refused(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--kernels", "reference", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"refmaml: {message}") and err.count("\n") == 1
