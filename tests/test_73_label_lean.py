"""benchmarks/label_lean.py: its counts, and the file it writes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import REFERENCE

from refmaml.cli import main

RUN = [
    *("--data", "glyphs", "--method", "reptile", "--channels", "2", "--n-way", "3"),
    *("--k-query", "2", "--steps", "2", "--train-shots", "2", "--inner-batch", "3"),
    *("--eval-tasks", "12", "--quiet", *REFERENCE),
]


@pytest.fixture
def label_lean(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import label_lean

    return label_lean


def test_predictions_of_each_label_are_counted_as_made_and_as_right_or_wrong(label_lean):
    labels = np.tile([0, 1, 2], (4, 1))
    given = labels.copy()
    given[:2, 0] = 2  # half of label 0's examples go to label 2
    assert label_lean.lean(labels, given, 3) == {
        "accuracy": 10 / 12,
        "given": [2 / 12, 4 / 12, 6 / 12],
        "accuracy by label": [0.5, 1, 1],
    }


def test_a_run_is_evaluated_both_ways_with_the_accuracies_of_evaluate(
    label_lean, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    main(["train", "--out", "run", *RUN])
    accuracy = json.loads(Path("run/result.json").read_text())["accuracy"]
    monkeypatch.setattr(
        sys, "argv", ["label_lean.py", "run", "--tasks", "12", "--out", "lean.json"]
    )
    label_lean.main()
    assert "one at a time" in capsys.readouterr().out
    (found,) = json.loads(Path("lean.json").read_text())["runs"]
    # The same tasks, summed in another order.
    assert found["transductive"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert found["support_order"] == "shuffled" and found["steps"] == 2
    for way in label_lean.WAYS:
        assert np.mean(found[way]["accuracy by label"]) == pytest.approx(
            found[way]["accuracy"], abs=1e-12
        )
        assert sum(found[way]["given"]) == pytest.approx(1, abs=1e-12)
