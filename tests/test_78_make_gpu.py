"""`make gpu` without a GPU: its sections with a stand-in for the device, and every check with the error it is there to find."""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest
from gpu_stand_in import StandIn, changing, named_cuda, wrong_by_a_thousandth

import refmaml as rm
from refmaml import kernels
from refmaml.bench.gpu import determinism, engine, kernel_rows, part, process, replay, sanitizer, sections, small, suite
from refmaml.bench.workloads import TABLE
from refmaml.cli import main
from refmaml.errors import ArgumentError, DataError

ROOT = Path(__file__).parent.parent
SMALL = {"small": (rm.conv4(n_way=3, channels=4, image=(1, 8, 8)), 4, 3)}


def load(path):
    """A script as a module of its own name."""
    spec = importlib.util.spec_from_file_location(f"make_gpu_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run():
    before = list(sys.path)
    module = load(ROOT / "benchmarks" / "gpu" / "run.py")
    sys.path[:] = before
    return module


def read(path):
    return json.loads(path.read_text())


# ---- determinism -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def calls():
    return {call.kernel: call for call, _ in kernel_rows.recorded(SMALL)}


@pytest.mark.parametrize("kernel", ["bias_forward", "vector_add_rows", "conv2d_backward_w"])
def test_kernels_that_add_to_what_is_there_give_the_same_bits_again(calls, kernel):
    assert determinism.kernel_bits(StandIn(), calls[kernel], None, "float32", 20).different == 0


@pytest.mark.parametrize("kernel", ["bias_forward", "conv2d_backward_w"])
def test_a_kernel_that_is_another_now_and_then_is_found(calls, kernel):
    gpu = StandIn(lambda version: made)
    for dtype in kernel_rows.DTYPES:
        made = changing(kernel)
        assert determinism.kernel_bits(gpu, calls[kernel], None, dtype, 20).different == 2        # the 7th and the 14th


def test_minus_nought_is_other_bits_than_nought(calls):
    signs = iter([1, 1, -1])

    def signed(out, *rest):
        out[...] = np.copysign(0, next(signs))
    gpu = StandIn(lambda version: named_cuda(kernels.reference(), bias_backward=signed))
    assert determinism.kernel_bits(gpu, calls["bias_backward"], None, "float64", 3).different == 1


@pytest.mark.parametrize(("kernel", "status"), [(None, 0), ("conv2d_backward_w", 1)])
def test_the_section_fails_where_bits_change(tmp_path, kernel, status):
    made = changing(kernel, every=5) if kernel else named_cuda(kernels.reference())          # a gradient calls it 14 times
    path = tmp_path / "found.json"
    assert determinism.main(path, StandIn(lambda version: made), SMALL, (("tiny", "float64"),), runs=8) == status
    found = read(path)
    assert found["passed"] == (status == 0) and found["gradients"][0]["runs"] == 8
    assert (len(found["gradients"][0]["digests"]) > 1) == bool(status)
    assert {row["kernel"] for row in found["kernels"] if row["different"]} == ({kernel} if kernel else set())


def test_what_is_run_by_default_is_every_kernel_a_hundred_times():
    names = {call.kernel for call, _ in kernel_rows.recorded({"every": small.small_nets()["every layer"], "mlp": (rm.mlp(), 2, 3)})}
    assert names == set(kernels.reference().functions) and determinism.RUNS == 100
    assert all(count <= 5 for _, _, count in determinism.small_nets().values())


# ---- graph replay ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("planted", "status"), [(None, 0), ("stale", 1), ("last bit", 1), ("absent", part.NOT_AVAILABLE)])
def test_a_graph_has_to_have_the_bits_of_launches_from_every_start(tmp_path, monkeypatch, planted, status):
    def graph(workload, dtype, kernel_set):
        if planted == "absent":
            raise NotImplementedError("no graph here")
        run = engine.eager(workload, dtype, kernel_set)

        def replayed(start):
            gradient = run(None if planted == "stale" else start)
            return np.nextafter(gradient, 1) if planted == "last bit" else gradient
        return replayed
    monkeypatch.setattr(engine, "graph", graph)
    path = tmp_path / "found.json"
    assert replay.main(path, StandIn(), (("tiny", "float32"), ("tiny", "float64"))) == status
    assert read(path)["passed"] == {0: True, 1: False, part.NOT_AVAILABLE: None}[status]


# ---- compute-sanitizer -------------------------------------------------------------------------------------------

SANITIZER = """#!{python}
import sys
tool, program = sys.argv[2], sys.argv[7:]
if "--version" in sys.argv:
    print("a stand-in"); sys.exit(0)
print("========= COMPUTE-SANITIZER"); print("========= planted" if program[-1] == tool else "========= clean")
finds, clean = {finds!r}, {clean!r}
sys.exit({found} if (tool in finds if program[-1] == tool else tool not in clean) else 0)
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A compute-sanitizer that finds the planted mistakes `finds` names, and something in the kernels except with the tools in `clean`."""
    def install(finds=sanitizer.TOOLS, clean=sanitizer.TOOLS):
        path = tmp_path / "compute-sanitizer"
        path.write_text(SANITIZER.format(python=sys.executable, finds=finds, clean=clean, found=sanitizer.FOUND))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return install


PROGRAM = (sys.executable, "-c", "pass")


@pytest.mark.parametrize(("installed", "status", "verdicts"), [
    ({}, 0, [True, True, True]),
    ({"clean": ("memcheck", "initcheck")}, 1, [True, False, True]),
    ({"finds": ("memcheck",)}, 0, [True, None, None]),
    ({"finds": ()}, part.NOT_AVAILABLE, [None, None, None])], ids=["all clean", "a race", "only memcheck works", "no tool works"])
def test_a_tool_is_believed_where_it_finds_what_was_planted(tmp_path, tool, installed, status, verdicts):
    tool(**installed)
    path = tmp_path / "found.json"
    assert sanitizer.main(path, program=PROGRAM) == status
    assert [row["passed"] for row in read(path)["tools"]] == verdicts


def test_without_the_tool_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sanitizer, "sanitizer", lambda: None)
    assert sanitizer.main(tmp_path / "found.json") == part.NOT_AVAILABLE
    assert read(tmp_path / "found.json")["reason"] == "compute-sanitizer is not installed"


def test_a_program_that_fails_by_itself_is_a_failure_of_the_section(tmp_path, tool):
    tool()
    assert sanitizer.main(tmp_path / "found.json", program=(sys.executable, "-c", "raise ValueError('no')")) == 1
    assert "ValueError: no" in read(tmp_path / "found.json")["said"]


def test_the_small_program_runs_every_kernel(capsys):
    ran = set()

    def noting(name, function):
        def noted(*arguments):
            ran.add(name)
            function(*arguments)
        return noted
    right = kernels.reference()
    gpu = StandIn(lambda version: named_cuda(right, **{name: noting(name, f) for name, f in right.functions.items()}))
    small.run_everything(gpu, small.small_nets())
    assert ran == set(right.functions) and "kernels ran, and a meta-gradient" in capsys.readouterr().out
    assert set(small.PLANTED) == set(sanitizer.TOOLS)


# ---- the marked tests --------------------------------------------------------------------------------------------

HEAD = "import pytest, warnings\npytestmark = pytest.mark." + "gpu\n"          # this file has no such test


@pytest.mark.parametrize(("text", "status", "counts"), [
    ("def test_a(): warnings.warn('old')\ndef test_b(): pass", 0, (2, 0, 0)),
    ("def test_a(): pass\ndef test_b(): assert 1 == 2", 1, (1, 1, 0)),
    ("def test_a(): pass\ndef test_b(): pytest.skip('no GPU')", 1, (1, 0, 1)),
    ("def test_a(): pass\nimport no_such_module", 1, (0, 0, 0))], ids=["pass", "one fails", "one is skipped", "a file is broken"])
def test_the_suite_passes_where_every_marked_test_did(tmp_path, text, status, counts):
    (tmp_path / "test_marked.py").write_text(HEAD + text)
    (tmp_path / "test_other.py").write_text("import no_such_module")               # not marked: not even imported
    code = ("import sys; from refmaml.bench.gpu import suite; "
            f"sys.exit(suite.main({str(tmp_path / 'found.json')!r}, {str(tmp_path)!r}, ['-o', 'markers=gpu: needs one']))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    found = read(tmp_path / "found.json")
    assert done.returncode == status, done.stdout + done.stderr
    assert found["passed"] == (status == 0) and tuple(found["counts"].values()) == counts
    assert bool(found["broken"]) == ("no_such" in text)


def test_the_tests_on_a_gpu_have_the_mark():
    assert [Path(name).name for name in suite.marked(ROOT / "tests")] == ["test_17_cuda_on_gpu.py"]


STAND_IN = """import sys
sys.path[:0] = [{tests!r}]
from gpu_stand_in import named_cuda, wrong_by_a_thousandth
from refmaml import kernels
kernels.cuda = lambda *given, **options: {made}
from refmaml.bench.gpu import suite
sys.exit(suite.main({path!r}, {tests!r}, ["-k", "losses_and_vectors"]))
"""


@pytest.mark.parametrize(("made", "status"), [("named_cuda(kernels.reference())", 0),
                                              ("wrong_by_a_thousandth('squared_error_backward')", 1)], ids=["right", "wrong"])
def test_a_wrong_kernel_fails_the_tests_of_the_section(tmp_path, made, status):
    code = STAND_IN.format(tests=str(ROOT / "tests"), path=str(tmp_path / "found.json"), made=made)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    failed = [name for name, test in read(tmp_path / "found.json")["tests"].items() if test["outcome"] == "failed"]
    assert bool(failed) == bool(status) and all("losses" in name for name in failed)


@pytest.mark.parametrize("kernel", [None, "conv2d_backward_x"])
def test_a_wrong_kernel_fails_the_ladder_of_the_section(tmp_path, monkeypatch, kernel):
    from refmaml.oracles import cases, kernel_checks, ladder
    monkeypatch.setattr(cases, "LAYERS", cases.LAYERS[:2])                          # in little: the whole takes minutes
    monkeypatch.setattr(kernel_checks, "chain_checks", lambda k: [])
    made = wrong_by_a_thousandth(kernel) if kernel else named_cuda(kernels.reference())
    monkeypatch.setattr("refmaml.cli.verify.kernel_set", lambda name: made)
    monkeypatch.setattr(ladder, "ladder", lambda k: [("kernels", iter(ladder.kernel_checks(k, kernels.reference())))])
    status = main(["verify", "--kernels", "cuda", "--json", str(tmp_path / "found.json")])
    found = read(tmp_path / "found.json")
    assert status == int(kernel is not None) and found["passed"] == (kernel is None)
    assert {"float32", "float64"} == {row["subject"].rpartition(", ")[2].rstrip("]") for row in found["rows"]
                                      if row["rung"] == "7 kernels" and "[cuda" in row["subject"]}
    assert sections.outcome(status) == ("failed" if kernel else "passed")


# ---- programs with a time limit ----------------------------------------------------------------------------------

def test_a_program_s_lines_and_status_come_back():
    heard = []
    code = "import sys; print('a'); print('b', file=sys.stderr); sys.exit(4)"
    status, lines = process.limited([sys.executable, "-c", code], 60, tell=heard.append)
    assert status == 4 and sorted(lines) == ["a", "b"] and heard == lines


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path):
    pids = tmp_path / "pids"
    code = (f"import os, subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
            f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); print('started', flush=True); time.sleep(600)")
    started = perf_counter()
    status, lines = process.limited([sys.executable, "-c", code], 4)
    assert status is None and lines == ["started"] and perf_counter() - started < 30
    sleep(0.2)
    for pid in pids.read_text().split():
        assert not alive(pid)


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_is_not_there_has_a_shell_s_status():
    assert process.limited(["/no/such/program"], 1)[0] == 127


# ---- sections ----------------------------------------------------------------------------------------------------

def section(name, code, limit=60, file="found.json"):
    """A section that runs a line of Python, `path` being its file and `leave` what writes it."""
    start = "import json, os, sys, time; path = sys.argv[1]; leave = lambda value: open(path, 'w').write(json.dumps(value)); "
    return sections.Section(name, f"about {name}", lambda path: [sys.executable, "-c", start + code, str(path)], limit, file)


FIVE = (section("good", "leave({'passed': True})"), section("wrong", "leave({'passed': False}); sys.exit(1)"),
        section("crash", "leave({'half': 1}); print('last words', flush=True); os.abort()"),
        section("hang", "leave({'half': 2}); time.sleep(600)", limit=5), section("absent", "leave({}); sys.exit(3)"),
        section("empty", "pass"), section("last", "leave({'passed': True})"))


def test_whatever_becomes_of_a_section_stays_its_own(tmp_path):
    record, path, seen = {"sections": {}}, tmp_path / "gpu.json", []

    def tell(line):
        seen.append((line, set(read(path)["sections"]) if path.exists() else set()))
    reached = sections.run_sections(FIVE, path, record, {"code": "x"}, tell=tell)
    assert reached == {"good": "passed", "wrong": "failed", "crash": "failed", "hang": "timed out", "absent": "not available",
                       "empty": "failed", "last": "passed"}
    found = read(path)["sections"]
    assert found["crash"]["found"] == {"half": 1} and "last words" in found["crash"]["said"] and found["crash"]["exit_status"] == -6
    assert found["hang"]["found"] == {"half": 2} and found["hang"]["limit"] == 5 and "it left no result" in found["empty"]["said"]
    assert all(entry["code"] == "x" and entry["title"] == f"about {name}" for name, entry in found.items())
    begun = {line.split()[1].rstrip(":"): there for line, there in seen if "at most" in line}
    assert begun["last"] == {"good", "wrong", "crash", "hang", "absent", "empty"}       # the file is written after each


def test_sections_for_which_no_time_is_left_are_not_run(tmp_path):
    record = {"sections": {"second": {"status": "passed"}}}
    reached = sections.run_sections((section("first", "leave({}); time.sleep(1.5)"), section("second", "leave({})"), section("third", "")),
                                    tmp_path / "gpu.json", record, {}, seconds=sections.LEAST + 1)
    assert reached == {"first": "passed", "second": "not run", "third": "not run"}
    assert read(tmp_path / "gpu.json")["sections"]["second"]["status"] == "passed"       # an earlier call's result stays


# ---- the script --------------------------------------------------------------------------------------------------

def device(name="stand-in", status=0):
    return section("device", f"leave({{'passed': True, 'device': {{'name': {name!r}}}}}); print('refmaml: {name}'); sys.exit({status})")


def test_a_failing_section_makes_the_status_1_and_other_calls_add_to_the_file(tmp_path, run, capsys):
    out = tmp_path / "results" / "gpu.json"
    assert run.main(["--out", str(out), "--quiet", "--only", "good", "absent"], device(), FIVE) == 0
    assert run.main(["--out", str(out), "--quiet", "--only", "wrong", "last"], device(), FIVE) == 1
    assert run.main(["--out", str(out), "--quiet", "--only", "hang", "--limit", "hang=6"], device(), FIVE) == 1
    found = read(out)
    assert set(found) == {"schema", "command", "versions", "machine", "sections"}
    assert set(found["sections"]) == {"device", "good", "absent", "wrong", "last", "hang"} and found["sections"]["hang"]["limit"] == 6
    assert len({entry["code"] for entry in found["sections"].values()}) == 1
    assert "wrong            failed" in capsys.readouterr().out


def test_results_of_another_device_are_not_mixed(tmp_path, run):
    out = tmp_path / "gpu.json"
    run.main(["--out", str(out), "--quiet", "--only", "good"], device(), FIVE)
    with pytest.raises(DataError, match="expected a file of other, got one of stand-in"):
        run.main(["--out", str(out), "--quiet", "--only", "good"], device("other"), FIVE)
    out.write_text("{}")
    with pytest.raises(DataError, match="expected a new file or one that this command wrote"):
        run.main(["--out", str(out), "--quiet", "--only", "good"], device(), FIVE)


def test_without_a_gpu_one_line_says_so_and_nothing_is_written(tmp_path, run, capsys):
    out = tmp_path / "gpu.json"
    assert run.main(["--out", str(out)], device("no GPU", 2), FIVE) == 2
    said = capsys.readouterr()
    assert said.err == "refmaml: no GPU\n" and not out.exists()


def test_on_this_machine_the_device_s_line_is_that_of_other_commands(run):
    try:
        kernels.cuda()
    except (ImportError, RuntimeError) as reason:
        probe = sections.run_section(run.DEVICE, 100, run.surroundings(), lambda line: None)
        assert probe["exit_status"] == 2 and probe["said"] == [f"refmaml: kernels: {reason}"]
    else:
        pytest.skip("there is a GPU here")


@pytest.mark.parametrize(("given", "message"), [
    (["--only", "soon"], "--only: expected some of good, wrong"), (["--limit", "hang"], "--limit: expected SECTION=S"),
    (["--limit", "hang=0"], "--limit: expected a finite number > 0, got '0'"), (["--seconds", "x"], "--seconds: expected a finite number")])
def test_bad_input_is_named(run, given, message):
    with pytest.raises(ArgumentError) as raised:
        run.main(given, device(), FIVE)
    assert str(raised.value).startswith(message)


def test_every_section_s_program_can_be_imported_and_has_its_limit(run, tmp_path):
    for each in run.SECTIONS:
        command = each.command(tmp_path / each.file)
        assert command[0] == sys.executable and command[1] == "-m" and 0 < each.limit <= 600
        assert importlib.util.find_spec(command[2]) is not None
    assert {each.name for each in run.SECTIONS} == {"ladder", "tests", "determinism", "graph", "sanitizer", "bench-kernels",
                                                    "bench-ourselves", "bench-meta"}


def test_results_of_other_code_have_another_digest(run, tmp_path, monkeypatch):
    for folder in ("kernels", "refmaml", "tests"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "kernels" / "a.cu").write_text("x")
    before = run.digest()
    (tmp_path / "kernels" / "a.cu").write_text("y")
    assert run.digest() != before


def test_make_gpu_makes_no_environment_and_installs_nothing():
    makefile = (ROOT / "Makefile").read_text()
    rule = makefile.partition("\ngpu:")[2].partition("\n\n")[0].splitlines()
    assert rule == ["", "\t$(PYTHON) benchmarks/gpu/run.py $(GPU)"]


def test_the_workloads_of_every_section_are_in_the_table():
    assert {name for name, _ in (*determinism.GRADIENTS, *replay.CASES)} <= set(TABLE)
