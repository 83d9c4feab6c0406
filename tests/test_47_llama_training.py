"""LLAMA on the command line: training, resuming, evaluating, options."""

import json
from pathlib import Path

import pytest
from command_line import REFERENCE, configuration, error_of, left_in, train

import refmaml as rm
from refmaml.cli import main, problem

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("folder")
GLYPHS = [
    *("--data", "glyphs", "--tasks", "2", "--n-way", "3", "--channels", "2"),
    *("--eval-tasks", "4", "--quiet", *REFERENCE),
]


@pytest.mark.slow
def test_a_run_on_glyphs_stopped_and_resumed_has_the_bits_of_a_whole_one():
    def run(*more):
        return main(["train", "--method", "llama", *GLYPHS, *more])

    assert run("--steps", "2", "--out", "whole") == 0
    assert run("--steps", "1", "--out", "part") == 0
    assert main(["train", "--resume", "--out", "part", "--steps", "2", "--quiet"]) == 0
    assert left_in("whole")[:2] == left_in("part")[:2]
    assert main(["evaluate", "part/checkpoint.npz", "--tasks", "3"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("curvature", ["kronecker", "probes"])
def test_it_trains_on_sinusoids(curvature):
    given = ["--curvature", curvature, "--laplace-precision", "30", "--lanczos-steps", "6"]
    assert train("--method", "llama", "--steps", "3", "--out", "run", *given) == 0
    _, _, table, config = left_in("run")
    assert config["method"] == "llama" and config["curvature"] == curvature and len(table) == 4


def test_options_become_fields_of_the_method():
    given = ["--laplace-weight", "0.5", "--laplace-precision", "2", "--curvature", "probes"]
    config = configuration(
        "--method", "llama", *given, "--laplace-probes", "3", "--lanczos-steps", "5"
    )
    method = problem.make_method(config)
    assert (method.weight, method.precision, method.curvature) == (0.5, 2.0, "probes")
    assert (method.probes, method.lanczos_steps) == (3, 5)
    plain = problem.make_method(configuration("--method", "llama", "--data", "sinusoid"))
    assert plain == rm.LLAMA(plain.inner_lr, plain.inner_steps)


def test_another_method_refuses_them(capsys):
    line = error_of(capsys, "train", *GLYPHS, "--steps", "1", "--laplace-weight", "1")
    assert line.startswith("--laplace-weight: expected --method llama beside it")


def test_what_the_document_says_of_eta_is_measured():
    text = " ".join((ROOT / "docs/laplace.md").read_text().split())
    record = json.loads((ROOT / "benchmarks/llama_sinusoids.json").read_text())
    maml, default, large = record["rows"]
    assert (maml["method"], default["weight"], large["weight"]) == ("maml", 1e-6, 1e-3)
    for row in (default, large):
        assert f"{row['held_out']:.2f} +- {row['interval']:.2f} after {row['meta_steps']:,}" in text
    assert (
        f"in training is {default['training']:.2f}, and that of MAML {maml['training']:.2f}" in text
    )
