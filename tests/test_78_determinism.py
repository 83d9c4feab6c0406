"""Sections of `make gpu` without a GPU: determinism, graph replay, the ladder.

Each check is tested with the error that it must find.
"""

import json

import numpy as np
import pytest
from gpu_stand_in import SMALL, StandIn, changing, named_cuda, right_kernels, wrong_by_a_thousandth

import refmaml as rm
from refmaml import kernels
from refmaml.bench.gpu import determinism, engine, kernel_rows, replay, sanitizer_program, sections
from refmaml.bench.kernel_table import reference_functions
from refmaml.cli import main, verify_numba_cuda

pytestmark = pytest.mark.slow


def read(path):
    return json.loads(path.read_text())


# ---- determinism ----


@pytest.fixture(scope="module")
def calls():
    return {call.kernel: call for call, _ in kernel_rows.recorded_calls(SMALL)}


@pytest.mark.parametrize("kernel", ["bias_forward", "vector_add_rows", "conv2d_backward_w"])
def test_kernels_that_add_to_their_output_give_the_same_bits_again(calls, kernel):
    assert determinism.kernel_bits(StandIn(), calls[kernel], None, "float32", 20).different == 0


@pytest.mark.parametrize("kernel", ["bias_forward", "conv2d_backward_w"])
def test_a_kernel_whose_bits_sometimes_change_is_found(calls, kernel):
    gpu = StandIn(lambda version: made)
    for dtype in kernel_rows.DTYPES:
        made = changing(kernel)
        result = determinism.kernel_bits(gpu, calls[kernel], None, dtype, 20)
        assert result.different == 2  # the 7th and the 14th call


def test_minus_zero_has_other_bits_than_zero(calls):
    signs = iter([1, 1, -1])

    def signed(out, *rest):
        out[...] = np.copysign(0, next(signs))

    gpu = StandIn(lambda version: named_cuda(right_kernels(), bias_backward=signed))
    assert determinism.kernel_bits(gpu, calls["bias_backward"], None, "float64", 3).different == 1


@pytest.mark.parametrize(("kernel", "status"), [(None, 0), ("conv2d_backward_w", 1)])
def test_the_section_fails_where_bits_change(tmp_path, kernel, status):
    made = (
        changing(kernel, every=5) if kernel else named_cuda(right_kernels())
    )  # a gradient calls it 14 times
    path = tmp_path / "found.json"
    assert (
        determinism.main(path, StandIn(lambda version: made), SMALL, (("tiny", "float64"),), runs=8)
        == status
    )
    found = read(path)
    assert found["passed"] == (status == 0) and found["gradients"][0]["runs"] == 8
    assert (len(found["gradients"][0]["digests"]) > 1) == bool(status)
    assert {row["kernel"] for row in found["kernels"] if row["different"]} == (
        {kernel} if kernel else set()
    )


def test_by_default_every_kernel_runs_a_hundred_times():
    names = {
        call.kernel
        for call, _ in kernel_rows.recorded_calls(
            {"every": sanitizer_program.small_nets()["every layer"], "mlp": (rm.mlp(), 2, 3)}
        )
    }
    assert names == set(reference_functions()) and determinism.RUNS == 100
    assert all(count <= 5 for _, _, count in determinism.small_nets().values())


# ---- graph replay ----


@pytest.mark.parametrize(("planted", "status"), [(None, 0), ("stale", 1), ("last bit", 1)])
def test_a_graph_must_have_the_bits_of_eager_launches_from_every_start(
    tmp_path, monkeypatch, planted, status
):
    def graph(workload, dtype, kernel_set):
        run = engine.eager(workload, dtype, kernel_set)

        def replayed(start):
            gradient = run(None if planted == "stale" else start)
            return np.nextafter(gradient, 1) if planted == "last bit" else gradient

        return replayed

    monkeypatch.setattr(engine, "graph", graph)
    path = tmp_path / "found.json"
    assert replay.main(path, StandIn(), (("tiny", "float32"), ("tiny", "float64"))) == status
    assert read(path)["passed"] == (status == 0)


def test_a_graph_that_cannot_be_recorded_is_no_pass(tmp_path, monkeypatch):
    """CuPy cannot capture calls of cuBLAS. The program then ends with a traceback."""

    def refusing(workload, dtype, kernel_set):
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )

    monkeypatch.setattr(engine, "graph", refusing)
    with pytest.raises(NotImplementedError):
        replay.main(tmp_path / "found.json", StandIn(), (("tiny", "float32"),))


# ---- the ladder ----


@pytest.mark.parametrize("kernel", [None, "conv2d_backward_x"])
def test_a_wrong_kernel_fails_the_ladder_of_the_section(tmp_path, monkeypatch, kernel):
    from refmaml.oracles import cases, kernel_checks, ladder

    # The whole ladder takes minutes.
    monkeypatch.setattr(cases, "LAYERS", cases.LAYERS[:2])
    monkeypatch.setattr(kernel_checks, "whole_net_checks", lambda k: [])
    made = wrong_by_a_thousandth(kernel) if kernel else named_cuda(right_kernels())
    monkeypatch.setattr("refmaml.cli.verify.kernel_set", lambda name: made)
    monkeypatch.setattr(
        ladder,
        "ladder",
        lambda k, complete: [("kernels", iter(ladder.kernel_checks(k, kernels.reference())))],
    )
    status = main(["verify", "--kernels", "cuda", "--json", str(tmp_path / "found.json")])
    found = read(tmp_path / "found.json")
    assert status == int(kernel is not None) and found["passed"] == (kernel is None)
    assert {"float32", "float64"} == {
        row["subject"].rpartition(", ")[2].rstrip("]")
        for row in found["rows"]
        if row["rung"] == "7 kernels" and "[cuda" in row["subject"]
    }
    assert sections.outcome(status) == ("failed" if kernel else "passed")


def test_the_numba_section_provides_a_removed_name_of_numpy_and_the_folder_of_cuda(
    tmp_path, monkeypatch
):
    monkeypatch.delattr(np, "row_stack", raising=False)
    monkeypatch.setattr(verify_numba_cuda, "CUDA", tmp_path)
    for environment, home in (({}, str(tmp_path)), ({"CUDA_HOME": "elsewhere"}, "elsewhere")):
        monkeypatch.setattr(verify_numba_cuda.os, "environ", environment)
        verify_numba_cuda.work_around_numba()
        assert np.row_stack is np.vstack and environment == {"CUDA_HOME": home}
