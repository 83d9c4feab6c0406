"""benchmarks/methods: one protocol, runs that go on where they stopped, one table."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from refmaml.cli import options, problem
from refmaml.cli.omniglot import protocols
from refmaml.training import checkpoint

ROOT = Path(__file__).parent.parent
TINY = {"channels": 2, "eval_tasks": 4, "tasks": 2, "kernels": "reference"}


@pytest.fixture(scope="module")
def benchmark():
    """The modules run and protocol of the folder, which is no package."""
    names = ("run", "protocol", "table", "picture")
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(ROOT / "benchmarks/methods"))
    try:
        import run

        yield run
    finally:
        sys.path.pop(0)
        for name in names:
            sys.modules.pop(name, None)
        sys.modules |= {name: module for name, module in before.items() if module}


def started(benchmark, folder, minutes, *methods):
    words = ["--runs", folder / "runs", "--out", folder, "--minutes", minutes, "--threads", 1]
    benchmark.main([*map(str, words), "--methods", *methods, "--quiet"], **TINY)
    return json.loads((folder / "methods.json").read_text())["results"]


def test_all_methods_have_the_same_net_tasks_and_evaluation(benchmark):
    own = set(protocols.OWN["reptile"]) | set(protocols.ONE_STEP) | {"steps", "minutes"}
    configurations = [
        benchmark.protocol.configuration(name, 40) for name in benchmark.protocol.METHODS
    ]
    of_a_method = set(problem.FIELDS) | {"context", "adapts"} | own
    shared = [
        {
            name: value
            for name, value in config.items()
            if name not in of_a_method and options.has_effect(name, config)
        }
        for config in configurations
    ]
    assert all(config == shared[0] for config in shared)
    equal = protocols.configuration("equal", "maml", "5w1s")
    of_files = benchmark.protocol.OF_FILES
    differing = [name for name in shared[0] if shared[0][name] != equal[name]]
    assert set(differing) <= {"data", *of_files}
    for config in configurations:
        assert options.reread(config)["method"] == config["method"]


def test_the_methods_are_those_that_the_table_is_about(benchmark):
    assert set(benchmark.protocol.METHODS) == {
        "r2d2", "lrd2", "metaoptnet", "alpaca", "meta-curvature", "llama", "maml", "anil",
        "fomaml", "reptile", "cnp",
    }  # fmt: skip


def test_reptile_s_step_size_falls_to_0_within_its_budget_and_near_its_end(benchmark):
    for minutes in (10, 40):
        steps = benchmark.protocol.configuration("reptile", minutes)["steps"]
        assert steps == benchmark.protocol.REPTILE_STEPS_PER_CORE_MINUTE * minutes
    results = json.loads((benchmark.HERE / "methods.json").read_text())["results"]
    (reptile,) = (r for r in results if r["method"] == "reptile")
    budget = reptile["budget_minutes"] * reptile["threads"]
    assert 0.9 * budget < reptile["processor_minutes"] <= budget
    assert reptile["steps"] == reptile["configuration"]["steps"]


def test_a_table_is_written_and_a_run_goes_on(benchmark, tmp_path):
    (first,) = started(benchmark, tmp_path, 0.002, "r2d2")
    at = tmp_path / "runs/r2d2/checkpoint.npz"
    curve = checkpoint.load(at)[0].rows
    results = started(benchmark, tmp_path, 0.006, "r2d2", "fomaml")
    assert [r["method"] for r in results] == ["r2d2", "fomaml"]
    assert results[0]["steps"] > first["steps"] > 0
    again = checkpoint.load(at)[0].rows[: len(curve)]
    assert np.array_equal(again.table, curve.table, equal_nan=True)
    assert results[0]["processor_minutes"] >= 0.006 > first["processor_minutes"] >= 0.002
    text = (tmp_path / "methods.md").read_text()
    for result in results:
        accuracy = result["evaluations"]["transductive"]["accuracy"]
        assert f"| {100 * accuracy:.1f} +- " in text
    assert "0.006 minutes on 1 core" in text and (tmp_path / "methods.png").stat().st_size > 5000
    # A smaller budget is that of the run as it is: it is evaluated again, and no more.
    smaller = started(benchmark, tmp_path, 0.003, "r2d2")[0]
    assert smaller["steps"] == results[0]["steps"] and smaller["budget_minutes"] == 0.003
    started(benchmark, tmp_path, 0.006, "r2d2")
    # Nothing is computed again where the budget is used.
    before = (tmp_path / "runs/r2d2/result.json").stat().st_mtime_ns
    started(benchmark, tmp_path, 0.006, "r2d2")
    assert (tmp_path / "runs/r2d2/result.json").stat().st_mtime_ns == before


def test_a_run_that_was_stopped_between_two_files_goes_on(benchmark, tmp_path):
    """spent.json is written before the checkpoint that it belongs to."""
    started(benchmark, tmp_path, 0.002, "maml")
    path, folder = tmp_path / "runs/maml/spent.json", tmp_path / "runs/maml"
    step = checkpoint.load(folder / "checkpoint.npz")[0].step
    seconds = json.loads(path.read_text())[str(step)]
    spent = benchmark.Spent(path, step)
    spent.seconds += 1
    spent.write(step + 10)  # and the checkpoint does not follow
    assert benchmark.Spent(path, step).seconds == seconds


def test_a_checkpoint_of_other_options_is_refused(benchmark, tmp_path):
    started(benchmark, tmp_path, 0.002, "reptile")
    with pytest.raises(SystemExit, match=r"reptile/checkpoint.npz: expected .* got another steps"):
        started(benchmark, tmp_path, 20, "reptile")


def test_the_document_has_the_committed_table(benchmark):
    folder, text = ROOT / "benchmarks/methods", (ROOT / "docs/methods.md").read_text()
    results = json.loads((folder / "methods.json").read_text())["results"]
    table = benchmark.table.markdown(results)
    assert (folder / "methods.md").read_text() == table and f"\n\n{table}\n" in text
    for result in results:  # the budget that the table names was used
        assert (
            result["ended_early"]
            or result["method"] == "reptile"
            or (result["processor_minutes"] >= result["budget_minutes"] * result["threads"])
        )
    results[0]["evaluations"]["transductive"]["accuracy"] += 0.002  # is found
    assert benchmark.table.markdown(results) not in text
