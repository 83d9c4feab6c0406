"""The sections of `make gpu`: time limits, crashes, results in several calls; and what docs/gpu.md says of them."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

import pytest

from refmaml import kernels
from refmaml.bench.gpu import determinism, process, replay, sections
from refmaml.bench.workloads import DEFAULT, TABLE
from refmaml.errors import ArgumentError, DataError

ROOT = Path(__file__).parent.parent


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


# ---- programs with a time limit ----------------------------------------------------------------------------------


def test_a_program_s_lines_and_status_come_back():
    heard = []
    code = "import sys; print('a'); print('b', file=sys.stderr); sys.exit(4)"
    status, lines = process.run_limited([sys.executable, "-c", code], 60, on_line=heard.append)
    assert status == 4 and sorted(lines) == ["a", "b"] and heard == lines


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path):
    pids = tmp_path / "pids"
    code = (
        f"import os, subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); print('started', flush=True); time.sleep(600)"
    )
    started = perf_counter()
    status, lines = process.run_limited([sys.executable, "-c", code], 8)
    assert status is None and lines == ["started"] and perf_counter() - started < 100
    assert all(gone(pid) for pid in pids.read_text().split())


NESTED = """
import sys
from refmaml.bench.gpu import process
code = ("import os, subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "open(sys.argv[1], 'w').write(f'{os.getpid()} {child.pid}'); print('started', flush=True); time.sleep(600)")
process.run_limited([sys.executable, "-c", code, sys.argv[1]], 500, on_line=lambda line: print(line, flush=True))
"""


def test_what_runs_under_a_limit_of_its_own_ends_with_the_outer_one(tmp_path):
    status, lines = process.run_limited(
        [sys.executable, "-c", NESTED, str(tmp_path / "pids")], 12
    )  # two interpreters start in it
    assert status is None and lines == ["started"]
    assert all(gone(pid) for pid in (tmp_path / "pids").read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with who started it")
def test_what_runs_under_a_limit_ends_with_who_set_it_however_that_ends(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", NESTED, str(tmp_path / "pids")], stdout=subprocess.PIPE
    ) as outer:
        outer.stdout.readline()
        outer.kill()
    program, child = (tmp_path / "pids").read_text().split()
    assert gone(program)
    os.kill(
        int(child), signal.SIGKILL
    )  # what the program itself started, nobody told to go with it


def gone(pid):
    """Whether a process that was told to end does, or is a zombie, within ten seconds: of itself it would go on for minutes."""
    end = perf_counter() + 10
    while perf_counter() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        sleep(0.02)
    return False


def test_a_program_that_is_not_there_has_a_shell_s_status():
    assert process.run_limited(["/no/such/program"], 30) == (
        127,
        ["/no/such/program: No such file or directory"],
    )


# ---- sections ----------------------------------------------------------------------------------------------------


def section(name, code, limit=60, file="found.json"):
    """A section that runs a line of Python, `path` being its file and `leave` what writes it."""
    start = "import json, os, sys, time; path = sys.argv[1]; leave = lambda value: open(path, 'w').write(json.dumps(value)); "
    return sections.Section(
        name,
        f"about {name}",
        lambda path: [sys.executable, "-c", start + code, str(path)],
        limit,
        file,
    )


FIVE = (
    section("good", "leave({'passed': True})"),
    section("wrong", "leave({'passed': False}); sys.exit(1)"),
    section("crash", "leave({'half': 1}); print('last words', flush=True); os.abort()"),
    section("hang", "leave({'half': 2}); time.sleep(600)", limit=5),
    section("absent", "leave({}); sys.exit(3)"),
    section("empty", "pass"),
    section("last", "leave({'passed': True})"),
)


def test_whatever_becomes_of_a_section_stays_its_own(tmp_path):
    record, path, seen = {"sections": {}}, tmp_path / "gpu.json", []

    def tell(line):
        seen.append((line, set(read(path)["sections"]) if path.exists() else set()))

    reached = sections.run_sections(FIVE, path, record, {"code": "x"}, log=tell)
    assert reached == {
        "good": "passed",
        "wrong": "failed",
        "crash": "failed",
        "hang": "timed out",
        "absent": "not available",
        "empty": "failed",
        "last": "passed",
    }
    found = read(path)["sections"]
    assert (
        found["crash"]["found"] == {"half": 1}
        and "last words" in found["crash"]["said"]
        and found["crash"]["exit_status"] == -6
    )
    assert (
        found["hang"]["found"] == {"half": 2}
        and found["hang"]["limit"] == 5
        and "it left no result" in found["empty"]["said"]
    )
    assert all(
        entry["code"] == "x" and entry["title"] == f"about {name}" for name, entry in found.items()
    )
    begun = {line.split()[1].rstrip(":"): there for line, there in seen if "at most" in line}
    assert begun["last"] == {
        "good",
        "wrong",
        "crash",
        "hang",
        "absent",
        "empty",
    }  # the file is written after each


def test_sections_for_which_no_time_is_left_are_not_run(tmp_path):
    record = {"sections": {"second": {"status": "passed"}}}
    reached = sections.run_sections(
        (
            section("first", "leave({}); time.sleep(1.5)"),
            section("second", "leave({})"),
            section("third", ""),
        ),
        tmp_path / "gpu.json",
        record,
        {},
        seconds=sections.MIN_SECONDS + 1,
    )
    assert reached == {"first": "passed", "second": "not run", "third": "not run"}
    assert (
        read(tmp_path / "gpu.json")["sections"]["second"]["status"] == "passed"
    )  # an earlier call's result stays


# ---- the script --------------------------------------------------------------------------------------------------


def device(name="stand-in", status=0):
    return section(
        "device",
        f"leave({{'passed': True, 'device': {{'name': {name!r}}}}}); print('refmaml: {name}'); sys.exit({status})",
    )


def test_a_failing_section_makes_the_status_1_and_other_calls_add_to_the_file(
    tmp_path, run, capsys
):
    out = tmp_path / "results" / "gpu.json"
    assert run.main(["--out", str(out), "--quiet", "--only", "good", "absent"], device(), FIVE) == 0
    assert run.main(["--out", str(out), "--quiet", "--only", "wrong", "last"], device(), FIVE) == 1
    assert (
        run.main(
            ["--out", str(out), "--quiet", "--only", "hang", "--limit", "hang=6"], device(), FIVE
        )
        == 1
    )
    found = read(out)
    assert set(found) == {"schema", "command", "versions", "machine", "sections"}
    assert (
        set(found["sections"]) == {"device", "good", "absent", "wrong", "last", "hang"}
        and found["sections"]["hang"]["limit"] == 6
    )
    assert len({entry["code"] for entry in found["sections"].values()}) == 1
    assert "wrong            failed" in capsys.readouterr().out


def test_a_device_that_could_not_tell_of_itself_stops_no_later_call(tmp_path, run):
    out = tmp_path / "gpu.json"
    broken = section("device", "raise AttributeError('no such name')")
    run.main(["--out", str(out), "--quiet", "--only", "good"], broken, FIVE)
    assert run.main(["--out", str(out), "--quiet", "--only", "last"], device(), FIVE) == 0
    assert {"good", "last"} < set(read(out)["sections"])


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
        probe = sections.run_section(run.DEVICE, 100, run.section_environment(), lambda line: None)
        assert probe["exit_status"] == 2 and probe["said"] == [f"refmaml: kernels: {reason}"]
    else:
        pytest.skip("there is a GPU here")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--only", "soon"], "--only: expected some of good, wrong"),
        (["--limit", "hang"], "--limit: expected SECTION=S"),
        (["--limit", "hang=0"], "--limit: expected a finite number > 0, got '0'"),
        (["--seconds", "x"], "--seconds: expected a finite number"),
    ],
)
def test_bad_input_is_named(run, given, message):
    with pytest.raises(ArgumentError) as raised:
        run.main(given, device(), FIVE)
    assert str(raised.value).startswith(message)


def test_every_section_s_program_can_be_imported_and_has_its_limit(run, tmp_path):
    for each in run.SECTIONS:
        command = each.command(tmp_path / each.file)
        assert command[0] == sys.executable and command[1] == "-m" and 0 < each.limit <= 600
        assert importlib.util.find_spec(command[2]) is not None
    assert {each.name for each in run.SECTIONS} == {
        "ladder",
        "tests",
        "numba",
        "determinism",
        "graph",
        "sanitizer",
        "bench-kernels",
        "bench-ourselves",
        *(f"meta-{name}" for name in DEFAULT),
    }


def test_results_of_other_code_have_another_digest(run, tmp_path, monkeypatch):
    for folder in ("kernels", "refmaml", "tests"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "kernels" / "a.cu").write_text("x")
    before = run.code_digest()
    (tmp_path / "kernels" / "a.cu").write_text("y")
    assert run.code_digest() != before


def test_make_gpu_makes_no_environment_and_installs_nothing():
    makefile = (ROOT / "Makefile").read_text()
    rule = makefile.partition("\ngpu:")[2].partition("\n\n")[0].splitlines()
    assert rule == ["", "\t$(PYTHON) benchmarks/gpu/run.py $(GPU)"]


# ---- the table of docs/gpu.md ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return load(ROOT / "benchmarks" / "gpu" / "gpu_table.py")


def entry(found, status="passed", code="x"):
    return {"status": status, "title": "", "found": found, "code": code}


def timed(seconds):
    return {"median": seconds}


CONVOLUTION = {
    "net": "max-pool, support",
    "kernel": "conv2d_forward",
    "dtype": "float32",
    "shape": "32x5x64x14x14",
    "right": True,
}
RESULT = {"name": "", "title": "", "seconds": timed(1.0), "reduced": False}
SECTIONS = {
    "device": entry(
        {
            "device": {"name": "Card", "driver": "1.2", "cuda_runtime": 13010, "cupy": "14"},
            "versions": {"torch": "2", "jax": None},
        }
    ),
    "ladder": entry(
        {
            "rows": [
                {"passed": True, "error": 1.0, "tolerance": 4.0},
                {"passed": False, "error": None, "tolerance": 1.0},
            ]
        },
        "failed",
    ),
    "tests": entry({"counts": {"passed": 7, "failed": 0, "skipped": 0}}),
    "determinism": entry(
        {"kernels": [{"different": 0}, {"different": 2}], "gradients": [{"digests": ["a"]}]},
        "failed",
    ),
    "graph": entry({"reason": "the engine offers no CUDA graph", "replays": []}, "not available"),
    "sanitizer": entry(
        {"tools": [{"tool": "memcheck", "passed": True}, {"tool": "racecheck", "passed": None}]}
    ),
    "bench-kernels": entry(
        {
            "kernels": [
                {
                    **CONVOLUTION,
                    "version": v,
                    "timing": {"seconds": timed(us * 1e-6)},
                    "fraction": part,
                    "of_library": 0.5,
                }
                for v, us, part in ((2, 90, 0.3), (10, 40, 0.55), (1, 400, 0.1))
            ],
            "library": [{**CONVOLUTION, "reduced": False, "timing": {"seconds": timed(77e-6)}}],
        }
    ),
    "meta-strided-1": entry(
        {
            "meta": [
                {
                    "title": "strided net",
                    "tasks": 32,
                    "times_as_fast_as": {"a": 6.0, "b": 5.5},
                    "of_roof": 0.42,
                    "over_the_fastest_peer": 5.5,
                    "results": [
                        {**RESULT, "name": "refmaml", "seconds": timed(2e-3)},
                        {**RESULT, "name": "refmaml-graph", "seconds": timed(1e-3)},
                        {**RESULT, "name": "b", "title": "Bee", "seconds": timed(5.5e-3)},
                        {
                            **RESULT,
                            "name": "b-tf32",
                            "title": "Bee, TF32",
                            "seconds": timed(4e-3),
                            "reduced": True,
                        },
                    ],
                }
            ]
        },
        "timed out",
        "y",
    ),
}


def test_the_table_says_what_was_run_and_what_was_not(table, run):
    part = table.text({"sections": SECTIONS}, run.SECTIONS)
    for words in (
        "one Card (driver 1.2, CUDA 13.1, CuPy 14, PyTorch 2, JAX absent)",
        "more than one state of the code",
        "| **failed**: 1 of 2 checks, the largest error used inf% of its tolerance |",
        "| passed: 7 passed, 0 failed, 0 skipped |",
        "| **failed**: 2 kernels, 1 meta-gradients, 1 with other bits |",
        "| **not available**: the engine offers no CUDA graph |",
        "| passed: memcheck clean, racecheck does not work here |",
        "| **timed out** |",
        "| `conv2d_forward` | 10 | 40 us | 55% | 50% | 77 us |",
        "| strided net, 32 tasks | 1 ms | Bee: 5.5 ms | 5.5 | 42% | Bee, TF32: 4 ms |",
    ):
        assert words in part, words
    assert part.count(table.NEVER) == 2 + 4  # numba and bench-ourselves, and all workloads but one


def test_without_a_result_everything_is_listed_as_never_run(table, run):
    part = table.text(None, run.SECTIONS)
    assert part.count(table.NEVER) == 1 + len(run.SECTIONS) and all(
        f"| {s.name} | {s.title} |" in part for s in run.SECTIONS
    )


def test_docs_gpu_has_the_table_of_the_committed_result(table, run):
    _, part, after = table.between((ROOT / "docs" / "gpu.md").read_text())
    assert after and part == table.text(table.committed(), run.SECTIONS)


def test_the_workloads_of_every_section_are_in_the_table():
    assert {name for name, _ in (*determinism.GRADIENTS, *replay.CASES)} <= set(TABLE)
