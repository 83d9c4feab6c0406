"""benchmarks/extrapolation: the errors that it measures, and its committed figures."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles.tolerance import relative_error
from refmaml.tasks import Sinusoids

FOLDER = Path(__file__).parent.parent / "benchmarks/extrapolation"


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import measure

    monkeypatch.setattr(measure, "TASKS", 7)
    monkeypatch.setattr(measure, "POINTS", 6)
    monkeypatch.setattr(measure, "AT_ONCE", 3)
    monkeypatch.setattr(measure, "ADAPTED", (0, 2))
    yield measure
    monkeypatch.delitem(__import__("sys").modules, "measure")


def run_of(method, net, meta):
    name = type(method).__name__.lower()
    return SimpleNamespace(net=net, method=method, meta=meta, config={"method": name})


def started(method, net, seed):
    return run_of(method, net, method.init(net, net.init(seed, np.float64)))


def small_runs():
    net = rm.mlp((1, 5, 1))
    layers = [rm.Context(3), rm.Linear(4, 5), rm.Tanh(), rm.Linear(5, 2)]
    decoder = rm.Sequential(layers, rm.BoundedGaussianNLL(full=True), (1,))
    return {
        "cnp": [started(rm.CNP((4,), seed), decoder, seed) for seed in (0, 1)],
        "maml": [started(rm.MAML(0.01, 5), net, seed) for seed in (0, 1)],
    }


def test_errors_are_those_of_the_methods_own_adaptation(measure):
    runs = small_runs()
    batch = next(measure.tasks_of("A 6-8"))
    maml, cnp = runs["maml"][0], runs["cnp"][0]
    found = measure.errors(maml, batch)
    phi = rm.MAML(measure.ALPHA, 2).adapt(maml.net, maml.meta, *batch.arrays[:2])
    assert found.keys() == {"0", "0 diverged", "2", "2 diverged"}
    assert relative_error(found["2"], maml.net.loss(phi, *batch.arrays[2:])) < 1e-13
    assert (found["0"] != found["2"]).all() and not found["2 diverged"].any()

    phi = cnp.method.adapt(cnp.net, cnp.meta, *batch.arrays[:2])
    z, _ = cnp.net.forward(cnp.net.parameters.views(phi), batch.x_query)
    by_hand = [np.mean((z[t, :, 0] - batch.y_query[t, :, 0]) ** 2) for t in range(3)]
    assert relative_error(measure.errors(cnp, batch)["0"], by_hand) < 1e-14


def test_a_step_that_raises_the_support_loss_is_counted_and_not_kept(measure, monkeypatch):
    monkeypatch.setattr(measure, "ALPHA", 50.0)
    maml, batch = small_runs()["maml"][0], next(measure.tasks_of("A 8-10"))
    found = measure.errors(maml, batch)
    assert found["2 diverged"].all() and not found["0 diverged"].any()
    assert np.array_equal(found["0"], found["2"])


def test_every_task_is_measured_once_for_every_seed(measure):
    found = measure.over_seeds(small_runs(), "training range")
    assert found["maml"]["2"].shape == (2, 7) and found["cnp"]["0"].shape == (2, 7)
    whole = Sinusoids().sample(7, 10, 6, seed=measure.HELD_OUT_SEED, dtype=np.float64)
    assert relative_error(found["predict 0"]["0"][0], (whole.y_query**2).mean(axis=(1, 2))) < 1e-15


def test_the_waves_of_a_row_have_its_amplitudes_and_phases(measure):
    for row, given in measure.ROWS.items():
        low, high = given.get("amplitude", (0.1, 5.0))
        largest = max(np.abs(batch.y_query).max() for batch in measure.tasks_of(row))
        assert low * 0.5 < largest <= high, row


def test_a_summary_is_the_mean_over_seeds_with_the_interval_over_tasks(measure):
    values = np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]])
    by_task = [2.0, 3.0, 5.5]
    half = 1.96 * np.std(by_task, ddof=1) / np.sqrt(3)
    expected = {"mean": 3.5, "interval": round(half, 4), "seeds": [2.0, 5.0]}
    assert measure.summary(values) == expected


def committed(monkeypatch):
    """(the module that makes the table, the committed record, the document)."""
    monkeypatch.syspath_prepend(FOLDER)
    import table

    monkeypatch.delitem(__import__("sys").modules, "table")
    record = json.loads((FOLDER / "extrapolation.json").read_text())
    return table, record, table.DOCUMENT.read_text()


def test_the_document_has_the_committed_table(monkeypatch):
    table, record, text = committed(monkeypatch)
    assert f"\n\n{table.markdown(record)}\n\n" in text
    record["rows"][2]["errors"]["cnp"]["0"]["mean"] *= 1.01  # a figure that is off is found
    assert table.markdown(record) not in text


def test_what_the_document_says_of_the_crossing_is_measured(monkeypatch):
    _, record, text = committed(monkeypatch)
    rows = {row["name"]: row for row in record["rows"]}

    def error(row, name, k):
        return rows[row]["errors"][name][k]["mean"]

    def lead(row, k):
        """-1, 0 or 1: the CNP is better, neither is to the interval, MAML is."""
        found = rows[row]["cnp_minus_maml"][k]
        return 0 if abs(found["mean"]) < found["interval"] else np.sign(found["mean"])

    def ratio(row, name, k, of):
        return error(row, name, k) / error(row, *of)

    five, fifty, cnp, zero = ("maml", "5"), ("maml", "50"), ("cnp", "0"), ("predict 0", "0")
    assert "*Inside*, the CNP is the best" in text
    assert lead("training range", "5") == lead("training range", "50") == -1
    assert "less than a quarter of MAML's" in text and "less than half of that after fifty" in text
    assert ratio("training range", *cnp, of=five) < 1 / 4
    assert ratio("training range", *cnp, of=fifty) < 1 / 2
    assert "up to an amplitude of 6" in text and lead("A 5-6", "5") == lead("A 5-6", "50") == -1
    assert "a little ahead after five" in text.replace("\n  ", " ") and lead("A 6-8", "5") == 1
    by_seed = rows["A 6-8"]["cnp_minus_maml"]["5"]["seeds"]
    assert "one seed of three" in text and sum(mean < 0 for mean in by_seed) == 1
    assert lead("A 6-8", "50") == 1 and ratio("A 6-8", *fifty, of=cnp) < 1 / 2
    assert lead("A 8-10", "5") == 1 and ratio("A 8-10", *five, of=cnp) < 1 / 2
    assert ratio("A 8-10", *fifty, of=cnp) < 1 / 3
    for row in ("phase 1-1.25 pi", "phase 1.25-1.5 pi", "phase 1.5-1.75 pi"):
        assert lead(row, "5") == lead(row, "50") == 1
    for row in ("phase 1.25-1.5 pi", "phase 1.5-1.75 pi"):
        assert ratio(row, *cnp, of=zero) > 1.5
    assert 0.2 < ratio("A 5-10, phase 1-2 pi", *five, of=zero) < 0.3
    assert "two fifths or more in every row" in text
    assert all(ratio(row, *fifty, of=five) <= 3 / 5 for row in rows)
    assert f"left {rows['A 8-10']['errors']['maml']['5']['diverged']} of the 900 fits" in text
    assert set(record["runs"]["maml"]["meta_steps"]) == {30000} and len(record["seeds"]) == 3


@pytest.mark.slow
def test_the_command_trains_measures_and_goes_on(measure, monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "SEEDS", (0, 1))
    monkeypatch.setattr(measure, "METHODS", {
        "cnp": ("--method", "cnp", "--kernels", "reference", "--hidden", "4", "--context", "3"),
        "maml": ("--method", "maml", "--kernels", "reference", "--hidden", "4"),
    })  # fmt: skip
    monkeypatch.setattr(measure, "THREADS", {"cnp": (), "maml": ()})
    monkeypatch.setattr(measure, "ADAPTED", (0, 5, 50))
    for steps in (1, 2):
        out = tmp_path / f"{steps}.json"
        words = ["--runs", str(tmp_path / "runs"), "--steps", str(steps), "--out", str(out)]
        measure.main(words)
        record = json.loads(out.read_text())
        assert record["runs"]["cnp"]["meta_steps"] == [steps, steps]
        assert [row["name"] for row in record["rows"]] == list(measure.ROWS)
        first = record["rows"][0]
        assert len(first["errors"]["maml"]["50"]["seeds"]) == 2
        lead = first["errors"]["cnp"]["0"]["mean"] - first["errors"]["maml"]["5"]["mean"]
        assert first["cnp_minus_maml"]["5"]["mean"] == pytest.approx(lead, abs=2e-4)
