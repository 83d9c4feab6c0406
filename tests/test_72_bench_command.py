"""`refmaml bench`: refmaml alone, start-up costs, record, picture, command."""

import json
import re
import sys
from math import isclose
from pathlib import Path

import numpy as np
import pytest

import refmaml as rm
from refmaml.bench import agreement, comparison, machine, picture, record, standalone, startup
from refmaml.bench.implementations import PEERS
from refmaml.bench.timing import MIN_TURNS, Spread
from refmaml.bench.worker import ImplementationService, WorkerError
from refmaml.bench.workloads import DEFAULT, DEFAULT_ON_GPU, TABLE
from refmaml.cli import bench_tables, main

TINY = TABLE["tiny"]


# ---- refmaml alone ----


def test_imaml_computes_five_products_and_no_further_pass_on_the_support_set():
    passes = standalone.imaml_passes(inner_steps=3)
    assert passes["outer solve"]["hvp"] == standalone.CG_STEPS
    assert passes["outer solve"]["loss"] == passes["inner solve"]["hvp"] == 0


def test_bits_that_differ_have_different_digests():
    service = ImplementationService("refmaml", "reference")
    values = iter([np.zeros(3), np.zeros(3), np.array([0, 0, -0.0])])
    service.run = lambda: next(values)
    assert len(service.digests(3)) == 2


def test_start_up_costs_are_those_of_new_processes():
    assert startup.printed_seconds("import sys; print(float('numpy' in sys.modules))") == 0
    with pytest.raises(WorkerError, match="ValueError: no"):
        startup.printed_seconds("raise ValueError('no')")


# ---- the record and the picture ----


def test_ratios_are_those_of_the_medians():
    def result(name, seconds, exact=0.0):
        times = Spread(seconds, seconds, seconds, seconds, 3)
        return comparison.Result(name, name, {}, times, exact=exact)

    results = [
        result("refmaml", 2.0),
        result("sgemm", 1.0, None),
        result("slow", 8.0),
        result("fast", 5.0),
    ]
    entry = record.workload_record(TINY, results)
    assert entry["over_the_fastest_peer"] == 2.5
    assert entry["times_as_fast_as"] == {"slow": 4.0, "fast": 2.5}


def test_the_picture_accepts_a_workload_without_timings(tmp_path):
    refused = comparison.Result("refmaml", "refmaml", {}, refused="no")
    picture.write_picture(tmp_path / "p.png", [record.workload_record(TINY, [refused])])
    assert (tmp_path / "p.png").stat().st_size > 0


# ---- the command ----

TOP_KEYS = "schema versions machine limits kernel_set busy absent meta seconds resumed"


@pytest.fixture
def small_limits(monkeypatch):
    limits = {name: {1: 100.0} for name in ("sgemm", "dgemm", "copy")}
    monkeypatch.setattr(machine, "limits", lambda threads: limits)


@pytest.mark.slow
def test_the_command_writes_a_record_and_a_picture(tmp_path, capsys, small_limits):
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    command = "bench --only meta --workloads tiny --peers --kernels reference --seconds 0.05 --out"
    assert main([*command.split(), str(tmp_path)]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found) == set(TOP_KEYS.split())
    (entry,) = found["meta"]
    refmaml, sgemm = entry["results"]
    assert set(refmaml) == {*comparison.Result._fields, "gflops"} and sgemm["name"] == "sgemm"
    assert refmaml["exact"] < agreement.FLOAT64_LIMIT
    assert refmaml["seconds"]["count"] >= MIN_TURNS
    assert isclose(entry["of_sgemm"], refmaml["gflops"] / sgemm["gflops"])
    assert entry["over_the_fastest_peer"] is None
    assert (tmp_path / "bench.png").read_bytes()[1:4] == b"PNG"
    assert "Gflop/s" in capsys.readouterr().out


def entry_of(workload):
    """A record of a workload with figures that were not measured."""
    return {"workload": workload.name, "title": "made up", "results": []}


@pytest.fixture
def made_up(monkeypatch, small_limits):
    """Counts the workloads that are compared; the second one is stopped."""
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    compared = []

    def compare(workload, names, options):
        compared.append(workload.name)
        if len(compared) == 2:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(comparison, "compare", compare)
    monkeypatch.setattr(record, "workload_record", lambda w, results: entry_of(w))
    monkeypatch.setattr(bench_tables, "print_comparison", lambda entry: None)
    monkeypatch.setattr(picture, "write_picture", lambda *given: None)
    return compared


RESUMED = "bench --only meta --workloads tiny tiny-imaml tiny-reptile --peers --kernels reference"


def test_a_run_that_was_stopped_goes_on_behind_its_last_workload(made_up, tmp_path, capsys):
    command = [*RESUMED.split(), "--out", str(tmp_path)]
    assert main(command) == 130  # interrupted
    part = json.loads((tmp_path / "bench.json").read_text())
    assert [e["workload"] for e in part["meta"]] == ["tiny"] and part["resumed"] == 0
    assert main([*command, "--resume"]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert made_up == ["tiny", "tiny-imaml", "tiny-imaml", "tiny-reptile"]
    assert [e["workload"] for e in found["meta"]] == ["tiny", "tiny-imaml", "tiny-reptile"]
    assert found["resumed"] == 1


def test_a_run_that_was_stopped_before_its_first_record_starts(made_up, tmp_path, capsys):
    command = [*RESUMED.split(), "--out", str(tmp_path), "--resume"]
    assert main(command) == 130  # interrupted
    assert json.loads((tmp_path / "bench.json").read_text())["resumed"] == 0
    assert main(command) == 0 and made_up[0] == "tiny"


def test_a_record_of_other_versions_is_not_resumed(made_up, tmp_path, capsys):
    command = [*RESUMED.split(), "--out", str(tmp_path)]
    assert main(command) == 130  # interrupted
    part = json.loads((tmp_path / "bench.json").read_text())
    part["versions"]["numpy"] = "0.1"
    (tmp_path / "bench.json").write_text(json.dumps(part))
    assert main([*command, "--resume"]) == 2
    assert "--resume: expected the versions, machine and settings of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workloads", "huge"], f"--workloads: expected some of {', '.join(TABLE)}, got huge"),
        (
            ["--peers", "tensorflow"],
            f"--peers: expected some of {', '.join(PEERS)}, got tensorflow",
        ),
        (["--seconds", "soon"], "--seconds: expected a finite number > 0, got 'soon'"),
        (["--seconds", "0"], "--seconds: expected a finite number > 0, got '0'"),
    ],
)
def test_bad_input_is_one_line(options, message, capsys):
    assert main(["bench", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"refmaml: {message}\n"


def test_without_threadpoolctl_the_command_reports_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # Python then raises ImportError
    assert main(["bench"]) == 2
    assert capsys.readouterr().err.startswith("refmaml: threadpoolctl: expected it to be installed")


def test_the_smallest_workloads_have_one_task_or_25():
    tasks = {TABLE[name].tasks for name in TABLE if name.startswith(("sinusoid-", "linear-"))}
    assert tasks == {1, 25}


def test_the_default_is_every_workload_but_the_smallest():
    assert set(DEFAULT) == {name for name in TABLE if not name.startswith("tiny")}


def test_the_default_on_a_gpu_is_plain_maml_on_all_nets_but_the_largest():
    plain = {
        name
        for name in DEFAULT
        if TABLE[name].rule.plain and isinstance(TABLE[name].method, rm.MAML)
    }
    small = {name for name in plain if name.startswith("linear-") or name.endswith("-one")}
    assert set(DEFAULT_ON_GPU) == plain - {"resnet-1"} - small


# ---- imports ----


def imports(folder):
    """{(file, imported module of refmaml)} of all files in a folder of the package."""
    package = Path(rm.__file__).parent
    return {
        (str(path.relative_to(package)), module)
        for path in (package / folder).rglob("*.py")
        for module in re.findall(r"^\s*(?:from|import) (refmaml\.\w+)", path.read_text(), re.M)
    }


def test_nothing_below_the_command_line_imports_the_bench():
    below = {path for path, module in imports(".") if module == "refmaml.bench"}
    assert {path.split("/")[0] for path in below} == {"bench", "cli"}


def test_the_bench_imports_nothing_from_the_command_line():
    assert "refmaml.cli" not in {module for _, module in imports("bench")}


def test_the_autodiff_package_imports_neither_oracles_nor_the_bench():
    imported = {module for _, module in imports("autodiff")}
    assert "refmaml.methods" in imported
    assert not imported & {"refmaml.oracles", "refmaml.bench", "refmaml.doctor", "refmaml.cli"}
