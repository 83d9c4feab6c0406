"""What `make gpu` checks, without a GPU: on a stand-in for the device, every check with the error it is there to find."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from gpu_stand_in import SMALL, StandIn, changing, named_cuda, right_kernels, wrong_by_a_thousandth

import refmaml as rm
from refmaml import kernels
from refmaml.bench.gpu import (
    determinism,
    engine,
    kernel_rows,
    marked_tests,
    replay,
    result_file,
    sanitizer,
    sanitizer_program,
    sections,
)
from refmaml.bench.kernel_table import reference_functions
from refmaml.cli import main, verify_numba_cuda

ROOT = Path(__file__).parent.parent


def read(path):
    return json.loads(path.read_text())


# ---- determinism -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls():
    return {call.kernel: call for call, _ in kernel_rows.recorded_calls(SMALL)}


@pytest.mark.parametrize("kernel", ["bias_forward", "vector_add_rows", "conv2d_backward_w"])
def test_kernels_that_add_to_what_is_there_give_the_same_bits_again(calls, kernel):
    assert determinism.kernel_bits(StandIn(), calls[kernel], None, "float32", 20).different == 0


@pytest.mark.parametrize("kernel", ["bias_forward", "conv2d_backward_w"])
def test_a_kernel_that_is_another_now_and_then_is_found(calls, kernel):
    gpu = StandIn(lambda version: made)
    for dtype in kernel_rows.DTYPES:
        made = changing(kernel)
        assert (
            determinism.kernel_bits(gpu, calls[kernel], None, dtype, 20).different == 2
        )  # the 7th and the 14th


def test_minus_nought_is_other_bits_than_nought(calls):
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


def test_what_is_run_by_default_is_every_kernel_a_hundred_times():
    names = {
        call.kernel
        for call, _ in kernel_rows.recorded_calls(
            {"every": sanitizer_program.small_nets()["every layer"], "mlp": (rm.mlp(), 2, 3)}
        )
    }
    assert names == set(reference_functions()) and determinism.RUNS == 100
    assert all(count <= 5 for _, _, count in determinism.small_nets().values())


# ---- graph replay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("planted", "status"), [(None, 0), ("stale", 1), ("last bit", 1)])
def test_a_graph_has_to_have_the_bits_of_launches_from_every_start(
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
    """As CuPy refuses to record what calls cuBLAS; the section's program then ends with a traceback, and its section has failed."""

    def refusing(workload, dtype, kernel_set):
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )

    monkeypatch.setattr(engine, "graph", refusing)
    with pytest.raises(NotImplementedError):
        replay.main(tmp_path / "found.json", StandIn(), (("tiny", "float32"),))


# ---- compute-sanitizer -------------------------------------------------------------------------------------------

SANITIZER = """#!{python}
import sys
if "--version" in sys.argv:
    print("a stand-in"); sys.exit(0)
tool, program = sys.argv[2], sys.argv[sys.argv.index("--print-limit") + 2:]
finds, clean = {finds!r}, {clean!r}
found = (tool in finds if program[-1] == tool else tool not in clean)
print("========= COMPUTE-SANITIZER")
if "no end" not in (finds, clean):
    print("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)" if tool == "racecheck" and found else
          "========= ERROR SUMMARY: " + ("10 errors" if found else "0 errors"))
sys.exit({status} if found else {otherwise})
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A compute-sanitizer that finds the planted mistakes `finds` names, and something in the kernels except with the tools in `clean`.
    status: of a program in which it found something, which an access out of bounds ends; otherwise: of the others."""

    def install(finds=sanitizer.TOOLS, clean=sanitizer.TOOLS, status=1, otherwise=0):
        path = tmp_path / "compute-sanitizer"
        path.write_text(
            SANITIZER.format(
                python=sys.executable, finds=finds, clean=clean, status=status, otherwise=otherwise
            )
        )
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


PROGRAM = (sys.executable, "-c", "pass")


@pytest.mark.parametrize(
    ("installed", "status", "verdicts"),
    [
        ({}, 0, [True, True, True]),
        ({"clean": ("memcheck", "initcheck")}, 1, [True, False, True]),
        ({"clean": ("racecheck",), "status": 0}, 1, [False, True, False]),
        ({"otherwise": 1}, result_file.NOT_AVAILABLE, [None, None, None]),
        ({"finds": "no end"}, result_file.NOT_AVAILABLE, [None, None, None]),
        ({"finds": ("memcheck",)}, 0, [True, None, None]),
        ({"finds": ()}, result_file.NOT_AVAILABLE, [None, None, None]),
    ],
    ids=[
        "all clean",
        "a race",
        "what the program survives",
        "a program that fails under the tools",
        "no summary",
        "only memcheck works",
        "no tool works",
    ],
)
def test_a_tool_is_believed_where_it_finds_what_was_planted(
    tmp_path, tool, installed, status, verdicts
):
    tool(**installed)
    path = tmp_path / "found.json"
    assert sanitizer.main(path, program=PROGRAM) == status
    assert [row["passed"] for row in read(path)["tools"]] == verdicts


def test_tools_that_hang_take_no_longer_than_all_may(tmp_path, tool):
    tool()
    (tmp_path / "compute-sanitizer").write_text(f"#!{sys.executable}\nimport time; time.sleep(600)")
    started, path = perf_counter(), tmp_path / "found.json"
    assert (
        sanitizer.main(path, program=PROGRAM, seconds=3) == result_file.NOT_AVAILABLE
        and perf_counter() - started < 20
    )
    assert all("no end within its limit" in row["reason"] for row in read(path)["tools"])


def test_without_the_tool_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "find_sanitizer", lambda: None)
    assert sanitizer.main(tmp_path / "found.json") == result_file.NOT_AVAILABLE
    assert read(tmp_path / "found.json")["reason"] == "compute-sanitizer is not installed"


def test_a_program_that_fails_by_itself_is_a_failure_of_the_section(tmp_path, tool):
    tool()
    assert (
        sanitizer.main(
            tmp_path / "found.json", program=(sys.executable, "-c", "raise ValueError('no')")
        )
        == 1
    )
    assert "ValueError: no" in read(tmp_path / "found.json")["said"]


def test_the_small_program_runs_every_kernel(capsys):
    ran = set()

    def noting(name, function):
        def noted(*arguments):
            ran.add(name)
            function(*arguments)

        return noted

    right = kernels.KernelSet("cuda", reference_functions())
    gpu = StandIn(
        lambda version: named_cuda(
            right, **{name: noting(name, f) for name, f in right.functions.items()}
        )
    )
    sanitizer_program.run_everything(gpu, sanitizer_program.small_nets())
    assert (
        ran == set(right.functions)
        and "kernels ran, and a meta-gradient" in capsys.readouterr().out
    )
    assert set(sanitizer_program.PLANTED) == set(sanitizer.TOOLS)


# ---- the marked tests --------------------------------------------------------------------------------------------

HEAD = "import pytest, warnings\npytestmark = pytest.mark." + "gpu\n"  # this file has no such test


@pytest.mark.parametrize(
    ("text", "status", "counts"),
    [
        ("def test_a(): warnings.warn('old')\ndef test_b(): pass", 0, (2, 0, 0)),
        ("def test_a(): pass\ndef test_b(): assert 1 == 2", 1, (1, 1, 0)),
        ("def test_a(): pass\ndef test_b(): pytest.skip('no GPU')", 1, (1, 0, 1)),
        ("def test_a(): pass\nimport no_such_module", 1, (0, 0, 0)),
    ],
    ids=["pass", "one fails", "one is skipped", "a file is broken"],
)
def test_the_suite_passes_where_every_marked_test_did(tmp_path, text, status, counts):
    (tmp_path / "test_marked.py").write_text(HEAD + text)
    (tmp_path / "test_other.py").write_text(
        "import no_such_module"
    )  # not marked: not even imported
    code = (
        "import sys; from refmaml.bench.gpu import marked_tests; "
        f"sys.exit(marked_tests.main({str(tmp_path / 'found.json')!r}, {str(tmp_path)!r}, ['-o', 'markers=gpu: needs one']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    found = read(tmp_path / "found.json")
    assert done.returncode == status, done.stdout + done.stderr
    assert found["passed"] == (status == 0) and tuple(found["counts"].values()) == counts
    assert bool(found["broken"]) == ("no_such" in text)


def test_the_tests_on_a_gpu_have_the_mark():
    names = [Path(name).name for name in marked_tests.marked_files(ROOT / "tests")]
    assert "test_17_cuda_on_gpu.py" in names and Path(__file__).name not in names


STAND_IN = """import sys
sys.path[:0] = [{tests!r}]
from gpu_stand_in import named_cuda, right_kernels, wrong_by_a_thousandth
from refmaml import kernels
kernels.cuda = lambda *given, **options: {made}
from refmaml.bench.gpu import marked_tests
sys.exit(marked_tests.main({path!r}, {tests!r}, ["-k", "losses_and_vectors"]))
"""


@pytest.mark.parametrize(
    ("made", "status"),
    [("named_cuda(right_kernels())", 0), ("wrong_by_a_thousandth('squared_error_backward')", 1)],
    ids=["right", "wrong"],
)
def test_a_wrong_kernel_fails_the_tests_of_the_section(tmp_path, made, status):
    code = STAND_IN.format(tests=str(ROOT / "tests"), path=str(tmp_path / "found.json"), made=made)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    failed = [
        name
        for name, test in read(tmp_path / "found.json")["tests"].items()
        if test["outcome"] == "failed"
    ]
    assert bool(failed) == bool(status) and all("losses" in name for name in failed)


@pytest.mark.parametrize("kernel", [None, "conv2d_backward_x"])
def test_a_wrong_kernel_fails_the_ladder_of_the_section(tmp_path, monkeypatch, kernel):
    from refmaml.oracles import cases, kernel_checks, ladder

    monkeypatch.setattr(cases, "LAYERS", cases.LAYERS[:2])  # in little: the whole takes minutes
    monkeypatch.setattr(kernel_checks, "whole_net_checks", lambda k: [])
    made = wrong_by_a_thousandth(kernel) if kernel else named_cuda(right_kernels())
    monkeypatch.setattr("refmaml.cli.verify.kernel_set", lambda name: made)
    monkeypatch.setattr(
        ladder,
        "ladder",
        lambda k, whole: [("kernels", iter(ladder.kernel_checks(k, kernels.reference())))],
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


def test_the_numba_section_starts_where_numpy_dropped_a_name_and_nobody_says_where_cuda_is(
    tmp_path, monkeypatch
):
    monkeypatch.delattr(np, "row_stack", raising=False)
    monkeypatch.setattr(verify_numba_cuda, "CUDA", tmp_path)
    for environment, home in (({}, str(tmp_path)), ({"CUDA_HOME": "elsewhere"}, "elsewhere")):
        monkeypatch.setattr(verify_numba_cuda.os, "environ", environment)
        verify_numba_cuda.work_around_numba()
        assert np.row_stack is np.vstack and environment == {"CUDA_HOME": home}
