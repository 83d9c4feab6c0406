"""`refmaml bench --kernels cuda` without a GPU: the command."""

import json
from argparse import Namespace

import pytest
from gpu_stand_in import LIMITS, SMALL, StandIn, wrong_by_a_thousandth
from gpu_workers import StandInWorker, reference_gradient

from refmaml.bench import agreement
from refmaml.bench.gpu import comparison as gpu_comparison
from refmaml.bench.gpu import kernel_rows, roofs, rotation, standalone
from refmaml.bench.implementations import cuda_peers
from refmaml.bench.timing import Spread
from refmaml.bench.worker import WorkerError
from refmaml.bench.workloads import TABLE
from refmaml.cli import bench_gpu, main

pytestmark = pytest.mark.slow

TINY = TABLE["tiny"]


@pytest.fixture(autouse=True)
def cached_gradients(monkeypatch):
    """The reference computes each gradient once for all tests."""
    monkeypatch.setattr(gpu_comparison, "reference_gradient", reference_gradient)
    monkeypatch.setattr(standalone, "reference_gradient", reference_gradient)


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(
        gpu_comparison, "float64_gradient", lambda worker, workload: reference_gradient(workload)
    )


@pytest.fixture
def small(monkeypatch):
    """Given limits, and one small net."""
    monkeypatch.setattr(roofs, "roofs", lambda gpu: LIMITS)
    monkeypatch.setattr(kernel_rows, "nets_on_gpu", lambda: SMALL)


def options(tmp_path, *only, workloads=("tiny",), peers=()):
    return Namespace(
        only=only,
        workloads=list(workloads),
        peers=list(peers),
        seconds="1e-9",
        limit="20",
        out=str(tmp_path),
    )


def test_the_command_writes_a_record_of_kernels_and_of_refmaml_alone(tmp_path, small, capsys):
    assert bench_gpu.run_on_gpu(options(tmp_path, "kernels", "ourselves"), StandIn()) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {
        "schema",
        "versions",
        "machine",
        "device",
        "kernel_set",
        "absent",
        "limits",
        "device_after_limits",
        "kernels",
        "ourselves",
        "seconds",
    } == set(found)
    row = found["kernels"][0]
    assert set(row) == {*kernel_rows.KernelRow._fields, "right"} and set(row["timing"]) == set(
        rotation.Rotation._fields
    )
    assert (
        set(row["timing"]["seconds"]) == set(Spread._fields)
        and found["ourselves"][0]["exact"] < 1e-12
    )
    printed = capsys.readouterr().out
    assert "conv2d_forward v1" in printed and "float64 is" in printed and "WRONG" not in printed


def test_a_wrong_kernel_gives_status_1_and_is_marked(tmp_path, small, capsys):
    gpu = StandIn(lambda version: wrong_by_a_thousandth("conv2d_backward_w"))
    assert bench_gpu.run_on_gpu(options(tmp_path, "kernels"), gpu) == 1
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {row["kernel"] for row in found["kernels"] if not row["right"]} == {"conv2d_backward_w"}
    assert "WRONG" in capsys.readouterr().out


def test_a_float64_gradient_with_an_error_above_1e_12_gives_status_1(tmp_path, small):
    gpu = StandIn(lambda version: wrong_by_a_thousandth("conv2d_backward_w"))
    assert bench_gpu.run_on_gpu(options(tmp_path, "ourselves"), gpu) == 1


def test_an_interrupted_bench_leaves_what_it_has_measured(tmp_path, small, monkeypatch):
    monkeypatch.setattr("refmaml.cli.report.SECONDS_BETWEEN_FILES", 0)
    rows = iter([1, 2, 3])

    def stopping(*arguments):
        yield next(kernel_rows_of(*arguments))
        raise KeyboardInterrupt

    kernel_rows_of = kernel_rows.kernel_rows
    monkeypatch.setattr(kernel_rows, "kernel_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        bench_gpu.run_on_gpu(options(tmp_path, "kernels"), StandIn())
    assert len(json.loads((tmp_path / "bench.json").read_text())["kernels"]) == 1 and next(rows)


def test_a_peer_that_cannot_run_is_refused_without_an_error(
    tmp_path, small, reference, monkeypatch
):
    monkeypatch.setattr(bench_gpu, "REFMAML", ("refmaml",))
    right = {
        "gradient": reference_gradient(agreement.few_tasks(TINY)),
        "peak": 5,
        "prepare": (reference_gradient(TINY), 0.1),
        "turn": [0.5],
    }
    monkeypatch.setattr(
        "refmaml.bench.worker.Worker",
        lambda name, *rest: (
            StandInWorker(**right)
            if name == "refmaml"
            else StandInWorker(gradient=WorkerError(f"{name}: no GPU"))
        ),
    )
    monkeypatch.setattr("refmaml.bench.implementations.missing", lambda implementation: None)
    assert (
        bench_gpu.run_on_gpu(options(tmp_path, "meta", peers=["torch-graph-cuda"]), StandIn()) == 0
    )
    (entry,) = json.loads((tmp_path / "bench.json").read_text())["meta"]
    assert [r["refused"] for r in entry["results"]] == [None, "torch-graph-cuda: no GPU"]
    assert entry["results"][0]["peak"] == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--only", "startup"],
            "--only: expected some of kernels, ourselves, meta with --kernels cuda, got startup",
        ),
        (
            ["--peers", "higher"],
            f"--peers: expected some of {', '.join(cuda_peers.NAMES)}, got higher",
        ),
        (["--limit", "0"], "--limit: expected a finite number > 0, got '0'"),
    ],
)
def test_bad_input_is_one_line(given, message, capsys, monkeypatch):
    monkeypatch.setattr("refmaml.cli.bench.kernel_set", lambda name: None)
    assert main(["bench", "--kernels", "cuda", *given]) == 2
    assert capsys.readouterr().err == f"refmaml: {message}\n"
