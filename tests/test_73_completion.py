"""benchmarks/completion: the errors that it measures."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import train

FOLDER = Path(__file__).parent.parent / "benchmarks/completion"

ROOT = Path(__file__).parent.parent
SLOW = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
TINY = ("--data", "completion", "--hidden", "4", "--method", "cnp", "--context", "3",
        "--encoder", "4", "--k-shot", "12", "--k-query", "9", "--tasks", "2")  # fmt: skip


def runs(test):
    """A test that trains."""
    for mark in SLOW:
        test = mark(test)
    return test


@pytest.fixture
def completion(monkeypatch):
    """benchmarks/completion/measure.py for a run of two steps."""
    monkeypatch.syspath_prepend(FOLDER)
    import measure

    monkeypatch.setattr(measure, "PICTURES", 6)
    monkeypatch.setattr(measure, "SHOWN", (0, 3))
    monkeypatch.setattr(measure, "AT_ONCE", 4)
    assert train(*TINY, "--steps", "2", "--out", "run") == 0
    yield measure
    monkeypatch.delitem(__import__("sys").modules, "measure")


@runs
def test_errors_are_those_of_loops_over_pictures_and_pixels(completion):
    run = completion.Completion(Path("run"))
    chosen, shots = np.array([1, 4]), 7
    found, (mean, _) = run.errors(chosen, shots), run.predicted(chosen, shots)
    for t, picture in enumerate(chosen):
        pixels, order = run.pixels[picture], run.order[picture]
        known, unknown = order[:shots], order[shots:]
        by_cnp, by_nearest = [], []
        for p in unknown:
            distances = [sum((run.places[p] - run.places[q]) ** 2) for q in known]
            by_nearest.append((pixels[known[np.argmin(distances)]] - pixels[p]) ** 2)
            by_cnp.append((mean[t, p] - pixels[p]) ** 2)
        flat = ((pixels[known].mean() - pixels[unknown]) ** 2).mean()
        assert found["cnp"][t] == pytest.approx(np.mean(by_cnp))
        assert found["nearest pixel"][t] == pytest.approx(np.mean(by_nearest))
        assert found["mean of the pixels"][t] == pytest.approx(flat)


@runs
def test_a_picture_with_all_others_unknown_changes_nothing_of_its_own(completion):
    run = completion.Completion(Path("run"))
    alone, together = run.predicted(np.array([2]), 5)[0], run.predicted(np.array([0, 2]), 5)[0]
    assert np.allclose(alone[0], together[1], rtol=1e-12)


@runs
def test_the_command_writes_errors_and_a_picture(completion, tmp_path):
    completion.main(["run", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "completion.json").read_text())
    assert record["meta_steps"] == 2 and set(record["errors"]) == {"10", "50", "200"}
    assert (tmp_path / "completion.png").stat().st_size > 5000


# ---- the committed figures -----------------------------------------------------------


def lines(record):
    """The lines of the document's table."""

    def cell(summary, digits):
        return f"{summary['mean']:.{digits}f} +- {summary['interval']:.{digits}f}"

    names = ("mean of the pixels", "nearest pixel", "cnp")
    return [
        f"| {shots} | " + " | ".join(cell(errors[name], 3) for name in names)
        + f" | {cell(errors['cnp, -log p'], 2)} |"
        for shots, errors in record["errors"].items()
    ]  # fmt: skip


def test_the_document_has_the_committed_figures():
    record = json.loads((FOLDER / "completion.json").read_text())
    text = (ROOT / "docs/neural_process.md").read_text()
    assert all(line in text for line in lines(record)) and record["pictures"] == 200
    assert f"{record['meta_steps']:,} meta-steps of {record['configuration']['tasks']}" in text
    errors = record["errors"]
    assert list(errors) == ["10", "50", "200"]
    for shots in ("10", "50"):
        assert errors[shots]["cnp"]["mean"] < 0.8 * errors[shots]["nearest pixel"]["mean"]
    assert errors["200"]["cnp"]["mean"] > 1.2 * errors["200"]["nearest pixel"]["mean"]
    record["errors"]["50"]["cnp"]["mean"] += 0.001  # a figure that is off is found
    assert not all(line in text for line in lines(record))
