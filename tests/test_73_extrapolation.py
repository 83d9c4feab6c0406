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
    assert found.keys() == {0, 2}
    assert relative_error(found[2], maml.net.loss(phi, *batch.arrays[2:])) < 1e-13
    assert (found[0] != found[2]).all()

    phi = cnp.method.adapt(cnp.net, cnp.meta, *batch.arrays[:2])
    z, _ = cnp.net.forward(cnp.net.parameters.views(phi), batch.x_query)
    by_hand = [np.mean((z[t, :, 0] - batch.y_query[t, :, 0]) ** 2) for t in range(3)]
    assert relative_error(measure.errors(cnp, batch)[0], by_hand) < 1e-14


def test_every_task_is_measured_once_for_every_seed(measure):
    found = measure.over_seeds(small_runs(), "training range")
    assert found["maml"][2].shape == (2, 7) and found["cnp"][0].shape == (2, 7)
    whole = Sinusoids().sample(7, 10, 6, seed=measure.HELD_OUT_SEED, dtype=np.float64)
    assert relative_error(found["predict 0"][0][0], (whole.y_query**2).mean(axis=(1, 2))) < 1e-15


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
