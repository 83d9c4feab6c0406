"""Solved heads on the command line: training, resuming, evaluating, options."""

import pytest
from command_line import REFERENCE, configuration, error_of, left_in, train

import refmaml as rm
from refmaml.cli import main, problem

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
GLYPHS = [
    *("--data", "glyphs", "--net", "mlp", "--hidden", "8", "--tasks", "2", "--n-way", "3"),
    *("--eval-tasks", "4", "--quiet", *REFERENCE),
]


def train_glyphs(*more):
    return main(["train", *GLYPHS, *more])


@pytest.mark.parametrize(
    "method",
    [
        ["r2d2", "--head-intercept", "--head-strength", "50"],
        pytest.param(["metaoptnet", "--svm-cost", "0.2"], marks=pytest.mark.slow),
        pytest.param(["lrd2", "--newton-steps", "5"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_a_run_on_glyphs_stopped_and_resumed_has_the_bits_of_a_whole_one(method):
    given = ["--method", *method]
    assert train_glyphs("--steps", "2", "--out", "whole", *given) == 0
    assert train_glyphs("--steps", "1", "--out", "part", *given) == 0
    assert main(["train", "--resume", "--out", "part", "--steps", "2", "--quiet"]) == 0
    assert left_in("whole")[:2] == left_in("part")[:2]
    assert main(["evaluate", "part/checkpoint.npz", "--tasks", "3"]) == 0


def test_ridge_regression_trains_on_sinusoids_and_learns_its_strength():
    assert train("--method", "r2d2", "--steps", "5", "--out", "run") == 0
    meta, _, table, config = left_in("run")
    assert config["method"] == "r2d2" and len(table) == 6
    size = len(meta) // 4  # float32
    net = problem.net_structure(config, rm.kernels.reference())
    assert size == net.num_params + 3


def test_alpaca_trains_on_sinusoids_and_learns_its_prior():
    given = ["--method", "alpaca", "--prior-precision", "2", "--noise", "0.5"]
    assert train("--steps", "3", "--out", "run", *given) == 0
    meta, _, table, config = left_in("run")
    net = problem.net_structure(config, rm.kernels.reference())
    inputs = config["hidden"][-1] + 1
    assert len(meta) // 4 == net.num_params + inputs**2 + 1 and len(table) == 4
    assert problem.make_method(config) == rm.ALPaCA(2.0, 0.5)
    assert main(["evaluate", "run/checkpoint.npz", "--tasks", "3"]) == 0


def test_options_become_fields_of_the_method():
    strength = ["--head-strength", "2", "--head-scale", "3"]
    config = configuration("--method", "r2d2", *strength, "--head-intercept")
    assert problem.make_method(config) == rm.R2D2(2.0, 3.0, intercept=True)
    config = configuration("--method", "lrd2", *strength, "--newton-steps", "7")
    assert problem.make_method(config) == rm.LRD2(2.0, 3.0, newton_steps=7)
    assert problem.make_method(configuration("--method", "lrd2")) == rm.LRD2()


@pytest.mark.parametrize("option", [["--head-strength", "2"], ["--head-intercept"]])
def test_another_method_refuses_them(capsys, option):
    line = error_of(capsys, "train", *GLYPHS, "--steps", "1", *option)
    wanted = "expected --method r2d2 or lrd2 or metaoptnet beside it, got --method maml"
    assert line == f"{option[0]}: {wanted}"


def test_logistic_regression_refuses_a_regression(capsys):
    line = error_of(
        capsys, "train", "--data", "sinusoid", *REFERENCE, "--method", "lrd2", "--steps", "1"
    )
    assert line.startswith("y: expected labels, for LogisticHead")
