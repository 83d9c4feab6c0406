"""benchmarks/completion: the errors that it measures."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import train

FOLDER = Path(__file__).parent.parent / "benchmarks/completion"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
TINY = ("--data", "completion", "--hidden", "4", "--method", "cnp", "--context", "3",
        "--encoder", "4", "--k-shot", "12", "--k-query", "9", "--tasks", "2")  # fmt: skip


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


def test_a_picture_with_all_others_unknown_changes_nothing_of_its_own(completion):
    run = completion.Completion(Path("run"))
    alone, together = run.predicted(np.array([2]), 5)[0], run.predicted(np.array([0, 2]), 5)[0]
    assert np.allclose(alone[0], together[1], rtol=1e-12)


def test_the_command_writes_errors_and_a_picture(completion, tmp_path):
    completion.main(["run", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "completion.json").read_text())
    assert record["meta_steps"] == 2 and set(record["errors"]) == {"10", "50", "200"}
    assert (tmp_path / "completion.png").stat().st_size > 5000
