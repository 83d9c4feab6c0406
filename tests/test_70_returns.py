"""`refmaml returns`: the mean return of policies over updates."""

import csv

import numpy as np
import pytest
from command_line import error_of

from refmaml.cli import main, returns
from refmaml.training.policy_evaluation import goals_and_noise, step_sizes

TRAIN = (
    *("train", "--data", "navigation", "--tasks", "3", "--trajectories", "4"),
    *("--horizon", "8", "--hidden", "5", "--steps", "2", "--eval-tasks", "2", "--quiet"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of a small run."""
    out = tmp_path_factory.mktemp("run") / "maml"
    assert main([*TRAIN, "--out", str(out)]) == 0
    return str(out / "checkpoint.npz")


def table(path):
    with open(path) as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, np.array(rows, float).T, strict=True))


def test_curves_and_pictures_are_written(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    argv = ["returns", run, "--updates", "2", "--tasks", "4", "--out", str(tmp_path)]
    assert main(argv) == 0
    columns = table(tmp_path / "returns.csv")
    assert columns["updates"].tolist() == [0, 1, 2]
    best = columns["best possible"]
    assert (columns["maml, step 2"] < best).all() and np.ptp(best) == 0
    assert "untrained" in columns and "untrained, +-" in columns
    for name in ("returns.png", "paths.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("+-") == 9


def test_an_update_is_a_step_of_the_policy_gradient_on_a_batch_of_its_own(run):
    """With alpha 0 every update leaves the policy as it was."""
    start = next(iter(returns.load([run]).values()))
    draws = goals_and_noise(6, 2)
    moved, _ = returns.adapted(start._replace(inner_lr=0.3), draws)
    same, _ = returns.adapted(start._replace(inner_lr=0.0), draws)
    assert np.array_equal(moved[0], same[0]) and not np.array_equal(moved[1], same[1])
    assert same[1:].mean() != same[0].mean()  # other noise
    assert step_sizes(0.5, 3) == [0.5, 0.25, 0.25]


def test_sigma_replaces_that_of_the_policy(run):
    (start, *_), (own, *_) = (
        list(returns.load([run], sigma=sigma).values()) for sigma in (0.25, None)
    )
    assert np.allclose(start.theta[-2:], np.log(0.25))
    assert np.array_equal(start.theta[:-2], own.theta[:-2])


@pytest.mark.parametrize(
    "more, message",
    [
        (("--updates", "0"), "--updates: expected an integer >= 1, got '0'"),
        (("--sigma", "-1"), "--sigma: expected a finite number > 0, got '-1'"),
        (("--sigma", "x"), "--sigma: expected a finite number > 0, got 'x'"),
        (("--inner-lr", "1e30"), "trajectories of a policy: states: expected finite numbers, got"),
    ],
)
def test_wrong_options_are_one_line(run, tmp_path, capsys, more, message):
    line = error_of(capsys, "returns", run, "--tasks", "2", "--out", str(tmp_path), *more)
    assert line.startswith(message)


@pytest.mark.parametrize("command", ["evaluate", "curves"])
def test_commands_for_labelled_tasks_refuse_policies(run, capsys, command):
    line = error_of(capsys, command, run)
    assert (
        line
        == "--data: expected sets of examples; refmaml returns measures policies, got navigation"
    )


def test_a_run_on_other_data_is_refused(tmp_path, capsys):
    out = tmp_path / "sinusoid"
    argv = ["train", "--data", "sinusoid", "--hidden", "4", "--tasks", "2", "--steps", "1"]
    argv += ["--kernels", "reference", "--eval-tasks", "2", "--quiet", "--out", str(out)]
    assert main(argv) == 0
    capsys.readouterr()
    line = error_of(capsys, "returns", str(out / "checkpoint.npz"))
    assert line.endswith("expected a run of --data navigation, got sinusoid")


def test_lines_of_a_picture_can_be_told_apart():
    """Seeds of one method share a color; no two lines have both color and style."""
    names = [f"{name}, seed {seed}" for name in "abc" for seed in range(2)]
    names += [f"method {i}" for i in range(6)]
    looks = returns.looks_of(names)
    assert len(set(looks.values())) == len(names)
    assert len({looks[f"b, seed {seed}"][0] for seed in range(2)}) == 1
