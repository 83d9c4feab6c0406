"""The sections of `make gpu` and its script: crashes, hangs, several calls."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from clock import Clock
from gpu_scripts import ROOT, load_script
from hanging import limit_over_when

from refmaml import kernels
from refmaml.bench.gpu import determinism, replay, sections
from refmaml.bench.workloads import DEFAULT_ON_GPU, TABLE
from refmaml.errors import ArgumentError, DataError


@pytest.fixture(scope="module")
def run():
    return load_script("run.py")


def read(path):
    return json.loads(path.read_text())


# ---- sections ----


START = """
import json, os, sys, time
path = sys.argv[1]
def leave(value):
    with open(path + ".part", "w") as file:
        json.dump(value, file)
    os.replace(path + ".part", path)
"""


def section(name, code, limit=600, file="found.json"):
    """A section that runs lines of Python: leave(value) writes the section's file."""
    return sections.Section(
        name,
        f"about {name}",
        lambda path: [sys.executable, "-c", START + code, str(path)],
        limit,
        file,
    )


SECTIONS = (
    section("good", "leave({'passed': True})"),
    section("wrong", "leave({'passed': False}); sys.exit(1)"),
    section("crash", "leave({'half': 1}); print('last words', flush=True); os.abort()"),
    section("hang", "leave({'half': 2}); time.sleep(600)", limit=5),
    section("absent", "leave({}); sys.exit(3)"),
    section("empty", "pass"),
    section("last", "leave({'passed': True})"),
)


@pytest.fixture(autouse=True)
def hang_is_over_when_it_has_left_its_file(monkeypatch):
    def over(process):
        *_, code, path = process.args
        return "sleep" in code and Path(path).exists()

    limit_over_when(monkeypatch, over)


def test_a_crash_or_a_hang_affects_only_its_own_section(tmp_path):
    record, path, log = {"sections": {}}, tmp_path / "gpu.json", []

    def log_line(line):
        log.append((line, set(read(path)["sections"]) if path.exists() else set()))

    outcomes = sections.run_sections(SECTIONS, path, record, {"code": "x"}, log=log_line)
    assert outcomes == {
        "good": "passed",
        "wrong": "failed",
        "crash": "failed",
        "hang": "timed out",
        "absent": "not available",
        "empty": "failed",
        "last": "passed",
    }
    found = read(path)["sections"]
    assert found["crash"]["found"] == {"half": 1} and found["crash"]["exit_status"] == -6
    assert "last words" in found["crash"]["said"]
    assert found["hang"]["found"] == {"half": 2} and found["hang"]["limit"] == 5
    assert "it left no result" in found["empty"]["said"]
    assert all(
        entry["code"] == "x" and entry["title"] == f"about {name}" for name, entry in found.items()
    )
    before = {line.split()[1].rstrip(":"): done for line, done in log if "at most" in line}
    # The file is rewritten after each section.
    assert before["last"] == {"good", "wrong", "crash", "hang", "absent", "empty"}


def test_sections_without_time_left_are_not_run(tmp_path, monkeypatch):
    clock, path = Clock(), tmp_path / "gpu.json"

    def run_section(section, limit, environment, log):
        clock.sleep(1.5)
        return {"status": "passed", "seconds": 1.5, "limit": limit}

    monkeypatch.setattr(sections, "perf_counter", clock)
    monkeypatch.setattr(sections, "run_section", run_section)
    record = {"sections": {"second": {"status": "passed"}}}
    three = [section(name, "") for name in ("first", "second", "third")]
    limit = sections.MIN_SECONDS + 1
    outcomes = sections.run_sections(three, path, record, {}, seconds=limit)
    assert outcomes == {"first": "passed", "second": "not run", "third": "not run"}
    found = read(path)["sections"]
    assert found["first"]["limit"] == limit
    # The result of an earlier call stays.
    assert found["second"] == {"status": "passed"}


# ---- the script ----


def device(name="stand-in", status=0):
    result = {"passed": True, "device": {"name": name}}
    return section("device", f"leave({result}); print('refmaml: {name}'); sys.exit({status})")


def test_a_failed_section_gives_status_1_and_later_calls_add_to_the_file(tmp_path, run, capsys):
    out = tmp_path / "results" / "gpu.json"
    assert (
        run.main(["--out", str(out), "--quiet", "--only", "good", "absent"], device(), SECTIONS)
        == 0
    )
    assert (
        run.main(["--out", str(out), "--quiet", "--only", "wrong", "last"], device(), SECTIONS) == 1
    )
    assert (
        run.main(
            ["--out", str(out), "--quiet", "--only", "hang", "--limit", "hang=6"],
            device(),
            SECTIONS,
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


def test_a_device_section_that_failed_stops_no_later_call(tmp_path, run):
    out = tmp_path / "gpu.json"
    broken = section("device", "raise AttributeError('no such name')")
    run.main(["--out", str(out), "--quiet", "--only", "good"], broken, SECTIONS)
    assert run.main(["--out", str(out), "--quiet", "--only", "last"], device(), SECTIONS) == 0
    assert {"good", "last"} < set(read(out)["sections"])


def test_results_of_another_device_are_not_mixed(tmp_path, run):
    out = tmp_path / "gpu.json"
    run.main(["--out", str(out), "--quiet", "--only", "good"], device(), SECTIONS)
    with pytest.raises(DataError, match="expected a file of other, got one of stand-in"):
        run.main(["--out", str(out), "--quiet", "--only", "good"], device("other"), SECTIONS)
    out.write_text("{}")
    with pytest.raises(DataError, match="expected a new file or one that this command wrote"):
        run.main(["--out", str(out), "--quiet", "--only", "good"], device(), SECTIONS)


def test_without_a_gpu_one_line_reports_it_and_nothing_is_written(tmp_path, run, capsys):
    out = tmp_path / "gpu.json"
    assert run.main(["--out", str(out)], device("no GPU", 2), SECTIONS) == 2
    printed = capsys.readouterr()
    assert printed.err == "refmaml: no GPU\n" and not out.exists()


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
        run.main(given, device(), SECTIONS)
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
        *(f"meta-{name}" for name in DEFAULT_ON_GPU),
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


def test_the_workloads_of_every_section_are_in_the_table():
    assert {name for name, _ in (*determinism.GRADIENTS, *replay.CASES)} <= set(TABLE)
