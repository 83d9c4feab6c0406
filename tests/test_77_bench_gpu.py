"""`refmaml bench --kernels cuda` without a GPU, whole meta-gradients and the command: every check with the error it is there to find."""

import json
from argparse import Namespace
from functools import lru_cache
from math import isclose

import numpy as np
import pytest
from gpu_stand_in import LIMITS, SMALL, StandIn, wrong_by_a_thousandth

import refmaml as rm
from refmaml.bench import agreement, comparison, record
from refmaml.bench.gpu import comparison as gpu_comparison
from refmaml.bench.gpu import engine, kernel_rows, roofs, rotation, standalone
from refmaml.bench.implementations import cuda_peers, find, peers
from refmaml.bench.timing import Spread, by_turns
from refmaml.bench.worker import WorkerError
from refmaml.bench.workloads import TABLE
from refmaml.cli import bench_gpu, main

TINY = TABLE["tiny"]


# ---- whole meta-gradients ----------------------------------------------------------------------------------------


def test_launching_is_what_is_left_of_the_wall_time(monkeypatch):
    class Graph:
        def __call__(self):
            launched.append("with its wait")

        def launch(self):
            launched.append("alone")

    launched = []
    monkeypatch.setattr(engine, "graph", lambda *arguments: Graph())
    monkeypatch.setattr(standalone, "wall_times", lambda gpu, run: [4e-3] * 3)
    found = standalone.measure(StandIn(seconds=(1e-3,)), TINY)
    part = record.to_json(found)
    assert found.exact < 1e-14 and found.replayed and part["product_over_gradient"] == 1.0
    assert (
        part["launching"] == {"eager": 0.75, "graph": 0.75}
        and part["graph_refused"] is None
        and set(launched) == {"alone"}
    )


def test_without_a_graph_the_reason_is_kept():
    part = record.to_json(standalone.measure(StandIn(), TINY))
    if part["graph"] is None:
        assert part["graph_refused"] and part["launching"] is None


FIRST = {"convolution": "patches", "unroll": 1}  # of JAX's settings


class Answering:
    """A worker whose answers are known: {method: answer, or an exception}."""

    limit = 20

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def send(self, method, *arguments):
        self.asked.append(method)

    def receive(self, limit=None):
        answer = self.answers[self.asked[-1]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, method, *arguments):
        self.send(method, *arguments)
        return self.receive()

    def close_pipe(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@lru_cache
def reference_gradient(workload):
    return agreement.reference_gradient(workload)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """The reference's gradients are computed once."""
    monkeypatch.setattr(gpu_comparison, "reference_gradient", reference_gradient)
    monkeypatch.setattr(standalone, "reference_gradient", reference_gradient)


def raced(tune=0.0, answering=Answering, **others):
    """{name: Result} of a race on the tiny workload: refmaml, who is right, and others."""
    right, few = reference_gradient(TINY), reference_gradient(agreement.few_tasks(TINY))
    good = {"gradient": few, "prepare": (right, 0.1), "turn": [0.01], "peak": 1}
    workers = {
        "refmaml": Answering(**good | {"gradient": few}),
        **{name: answering(**good | change) for name, change in others.items()},
    }
    workers["refmaml"].answers["gradient"] = few
    options = comparison.Options("cuda", 0.0, 0.001, tune, log=lambda text: None)
    results = gpu_comparison.compare_on_gpu(TINY, list(workers), options, workers.get)
    return {r.name: r for r in results}


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(
        gpu_comparison, "float64_gradient", lambda ours, workload: reference_gradient(workload)
    )


def test_everybody_who_is_right_is_timed(reference):
    found = raced(**{"torch-graph-cuda": {}, "jax-vmap-cuda": {}})
    assert all(
        r.refused is None and r.seconds.median == 0.01 and r.peak == 1 for r in found.values()
    )
    assert found["jax-vmap-cuda"].settings == FIRST


def test_all_are_told_to_leave_before_one_is_waited_for(reference):
    order = []

    class Leaving(Answering):
        def close_pipe(self):
            order.append("told")

        def __exit__(self, *exception):
            order.append("waited for")

    raced(answering=Leaving, **{"torch-graph-cuda": {}, "jax-vmap-cuda": {}})
    assert order == ["told"] * 2 + ["waited for"] * 2


def test_a_wrong_peer_is_refused_and_one_in_tf32_is_told_apart(reference):
    right, few = reference_gradient(TINY), reference_gradient(agreement.few_tasks(TINY))
    found = raced(
        **{
            "torch-loop-cuda": {"gradient": 1.001 * few},
            "torch-vmap-cuda": {"prepare": (1.2 * right, 0.1)},
            "torch-graph-cuda-tf32": {"prepare": (1.2 * right, 0.1), "turn": [0.001]},
        }
    )
    assert (
        "float64 is 1.0e-03 off" in found["torch-loop-cuda"].refused
        and "float32 is 2.0e-01 off" in found["torch-vmap-cuda"].refused
    )
    reduced = found["torch-graph-cuda-tf32"]
    assert reduced.refused is None and reduced.reduced and isclose(reduced.rounded, 0.2)
    part = record.workload_record(TINY, list(found.values()), 1000.0)
    assert (
        part["over_the_fastest_peer"] is None and part["times_as_fast_as"] == {}
    )  # nobody of equal precision is left
    assert isclose(part["of_roof"], TINY.gflop / 0.01 / 1000)


def test_refmaml_has_to_be_right_to_a_billionth_of_a_thousandth(reference):
    few = reference_gradient(agreement.few_tasks(TINY))
    close = gpu_comparison.check_float64(
        few, comparison.Result("refmaml", "", {}), few * (1 + 1e-11)
    )
    assert "1.0e-11 off, expected at most 1e-12" in close.refused
    assert (
        gpu_comparison.check_float64(
            few, comparison.Result("torch-loop-cuda", "", {}), few * (1 + 1e-11)
        ).refused
        is None
    )


@pytest.mark.parametrize("method", ["gradient", "prepare", "turn", "peak"])
def test_who_fails_is_out_and_the_others_go_on(reference, method):
    found = raced(
        **{
            "torch-compile-cuda": {method: WorkerError("torch-compile-cuda: no compiler")},
            "torch-graph-cuda": {},
        }
    )
    assert (
        found["torch-compile-cuda"].refused == "torch-compile-cuda: no compiler"
        and found["torch-compile-cuda"].seconds is None
    )
    assert found["torch-graph-cuda"].seconds is not None and found["refmaml"].seconds is not None


class Choosy(Answering):
    """Who is right at the first settings, and whose process others end."""

    def receive(self, limit=None):
        method, arguments = self.given
        if method == "prepare" and arguments[1] != FIRST:
            raise WorkerError("jax-vmap-cuda: expected an answer within 60 s, got none")
        return super().receive(limit)

    def send(self, method, *arguments):
        self.given = method, arguments
        super().send(method, *arguments)


def test_who_fails_at_other_settings_is_timed_at_the_first(reference):
    found = raced(100, Choosy, **{"jax-vmap-cuda": {}})["jax-vmap-cuda"]
    assert found.refused is None and found.settings == FIRST and found.seconds.median == 0.01
    assert found.tried == (
        ({"other settings": "jax-vmap-cuda: expected an answer within 60 s, got none"}, None),
    )


def test_who_leaves_takes_no_more_turns():
    assert by_turns({"stays": lambda s: [s], "leaves": lambda s: None}, 0.0, 0.5) == {
        "stays": [0.5] * 3
    }


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize(
    "layer",
    [rm.Conv2d(2, 3, 3, padding=1), rm.Conv2d(2, 3, 3, stride=2, padding="same")],
    ids=["even", "uneven"],
)
def test_jax_s_own_convolution_is_the_one_of_patches(layer):
    from refmaml.autodiff import jax_formulas
    from refmaml.autodiff.jax_autodiff import float64, framework

    rng = np.random.default_rng(0)
    w = {"weight": rng.standard_normal((3, 2, 3, 3)), "bias": rng.standard_normal(3)}
    with float64():
        one, other = (
            np.asarray(f(framework(), layer, w, rng_x))
            for rng_x in [rng.standard_normal((4, 6, 5, 2))]
            for f in (jax_formulas.conv2d, jax_formulas.library_conv2d)
        )
    assert one.shape == other.shape and np.abs(one - other).max() < 1e-14


def test_peers_on_a_gpu_have_names_of_their_own_and_say_their_precision():
    assert not set(peers("cuda")) & set(peers("cpu"))
    for name in peers("cuda"):
        implementation = find(name, "cuda")
        assert (
            implementation.name == name
            and implementation.reduced == name.endswith(cuda_peers.TF32)
            and implementation.synchronize
            and implementation.peak_memory
        )
        assert set(implementation.choices(TINY)) <= {"convolution", "unroll"}


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """The bench in little: limits, nets and the pauses between files."""
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


def test_the_command_leaves_a_record_of_kernels_and_of_itself(tmp_path, small, capsys):
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


def test_a_wrong_kernel_makes_the_status_1_and_is_marked(tmp_path, small, capsys):
    gpu = StandIn(lambda version: wrong_by_a_thousandth("conv2d_backward_w"))
    assert bench_gpu.run_on_gpu(options(tmp_path, "kernels"), gpu) == 1
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {row["kernel"] for row in found["kernels"] if not row["right"]} == {"conv2d_backward_w"}
    assert "WRONG" in capsys.readouterr().out


def test_a_float64_gradient_beyond_a_millionth_of_a_millionth_makes_the_status_1(tmp_path, small):
    gpu = StandIn(lambda version: wrong_by_a_thousandth("conv2d_backward_w"))
    assert bench_gpu.run_on_gpu(options(tmp_path, "ourselves"), gpu) == 1


def test_what_was_measured_before_the_bench_was_stopped_is_in_the_file(
    tmp_path, small, monkeypatch
):
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


def test_a_peer_that_cannot_run_here_is_refused_and_no_error(
    tmp_path, small, reference, monkeypatch
):
    monkeypatch.setattr(bench_gpu, "REFMAML", ("refmaml",))
    right = {
        "gradient": reference_gradient(agreement.few_tasks(TINY)),
        "peak": 5,
        "prepare": (reference_gradient(TINY), 0.1),
        "turn": [0.5],
    }
    import refmaml.bench.worker as workers

    monkeypatch.setattr(
        workers,
        "Worker",
        lambda name, *rest: (
            Answering(**right)
            if name == "refmaml"
            else Answering(gradient=WorkerError(f"{name}: no GPU"))
        ),
    )
    monkeypatch.setattr("refmaml.bench.implementations.missing", lambda implementation: None)
    assert (
        bench_gpu.run_on_gpu(options(tmp_path, "meta", peers=["torch-graph-cuda"]), StandIn()) == 0
    )
    (part,) = json.loads((tmp_path / "bench.json").read_text())["meta"]
    assert [r["refused"] for r in part["results"]] == [None, "torch-graph-cuda: no GPU"] and part[
        "results"
    ][0]["peak"] == 5


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
