"""benchmarks/imaml_steps.py: it shows inner steps that are too long."""

import json
from pathlib import Path

import pytest
from command_line import REFERENCE, configuration

from refmaml.cli import main
from refmaml.cli.omniglot import protocols

pytestmark = pytest.mark.slow

TINY = [
    "--data",
    "glyphs",
    "--method",
    "imaml",
    "--channels",
    "2",
    "--n-way",
    "3",
    "--k-query",
    "2",
    "--tasks",
    "2",
    "--inner-steps",
    "4",
    *REFERENCE,
]


@pytest.fixture
def imaml_steps(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import imaml_steps

    monkeypatch.setattr(imaml_steps, "TASKS", 2)
    monkeypatch.setattr(imaml_steps, "SHOWN", 2)
    return imaml_steps


def test_a_step_that_is_too_long_shows_at_the_start_and_at_the_end_of_a_run(
    imaml_steps, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(protocols, "configuration", lambda *cell: configuration(*TINY))
    monkeypatch.setattr(imaml_steps, "STEP_SIZES", (10.0, 0.01, 1e20))
    assert (
        main(["train", *TINY, "--steps", "3", "--eval-tasks", "2", "--quiet", "--out", "run"]) == 0
    )
    imaml_steps.main(["run", "--data-root", ".", "--out", "steps.json"])
    found = json.loads(Path("steps.json").read_text())
    (run,) = found["runs"]
    assert (
        run["curve"]["up_to_step"] == [2, 3]
        and len(run["curve"]["loss"]) == 2
        and run["configuration"]["method"] == "imaml"
    )
    for at in (*found["at_start"].values(), run["at_end"]):
        long, short, longest = at["step_sizes"]
        assert longest["inner_lr"] == 1e20 and "expected finite numbers" in longest["refused"]
        assert (
            long["inner_lr"] == 10
            and long["support_loss"][1] > at["support_loss"][1] > short["support_loss"][1] > 0
        )
        assert at["sharpness"][0] > 0 and all(
            0 <= step["negative_curvature"] <= 2 for step in (long, short)
        )


def test_a_run_of_fewer_steps_than_its_curve_has_parts_is_taken(imaml_steps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imaml_steps, "SHOWN", 25)
    assert (
        main(["train", *TINY, "--steps", "1", "--eval-tasks", "2", "--quiet", "--out", "run"]) == 0
    )
    assert imaml_steps.of_run("run", ".")["curve"]["up_to_step"] == [1]
