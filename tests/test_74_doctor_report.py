"""The report as text, JSON, markdown and JUnit XML, and the README's example of it."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from implementations import MAML, maml, planted

import refmaml as rm
from refmaml.cli import main

ROOT = Path(__file__).parent.parent


QUICK = {"probes": ("quadratic", "mlp"), "repeats": 0}


@pytest.fixture(scope="module")
def wrong():
    return rm.check_meta_gradient(planted(h=0.0), MAML, **QUICK)


@pytest.fixture(scope="module")
def right():
    return rm.check_meta_gradient(maml, MAML, **QUICK)


def test_the_report_begins_with_the_mistake_and_its_fix(wrong):
    lines = str(wrong).splitlines()
    assert lines[0] == "WRONG: first-order: the second-order term is missing" and lines[
        1
    ].startswith("  fix: lam = lam - alpha")
    assert not wrong and not wrong.ok and wrong.verdict == "wrong"
    table = "\n".join(lines)
    for word in (
        "quadratic",
        "mlp",
        "allowed",
        "noise",
        "scale",
        "cosine",
        "worst entry",
        "again: rm.check_meta_gradient(",
    ):
        assert word in table


def test_the_worst_entry_is_shown_with_both_values(wrong):
    row = wrong.results[0].worst
    assert (
        f"{row.got:.6g} {row.expected:.6g}" in str(wrong)
        and row.error > 0.1
        and row.tolerance < 1e-11
    )


def test_json_holds_the_whole_report(wrong, right):
    record = json.loads(wrong.to_json())
    assert (
        record["schema"] == 1
        and record["verdict"] == "wrong"
        and record["diagnosis"].startswith("first-order")
    )
    assert record["about"]["seed"] == 0 and record["about"]["versions"]["refmaml"] == rm.__version__
    names = [row["name"] for row in record["sittings"][1]["parameters"]]
    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert (
        json.loads(right.to_json())["ok"] is True
        and len(json.loads(right.to_json())["sittings"]) == 4
    )


def test_markdown_has_a_table_of_cases_and_one_of_parameters(wrong):
    lines = wrong.to_markdown().splitlines()
    assert lines[0].startswith("### ") and "WRONG: first-order" in lines[0]
    assert sum(line.startswith("|---") for line in lines) == 2
    for block in "\n".join(lines).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_junit_counts_failures(wrong, right):
    suite = ET.fromstring(wrong.to_junit())
    assert suite.get("failures") == "2" and len(suite.findall("testcase/failure")) == 2
    assert "first-order" in suite.find("testcase/failure").get("message")
    assert (
        ET.fromstring(right.to_junit()).get("failures") == "0"
        and ET.fromstring(right.to_junit()).get("tests") == "4"
    )


def test_importing_refmaml_does_not_import_the_doctor():
    code = (
        "import sys, refmaml; "
        "print([m for m in sys.modules if 'doctor' in m or 'pytest_plugin' in m]); "
        "refmaml.check_meta_gradient; "
        "print({'torch', 'jax', 'scipy', 'numba'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.splitlines() == ["[]", "set()"], out.stdout + out.stderr


@pytest.mark.frameworks("torch")
def test_the_readme_s_example_prints_the_readme_s_output(tmp_path, capsys, monkeypatch):
    """Digit for digit, except for rounding errors, which differ between machines."""
    section = (ROOT / "README.md").read_text().partition("## The doctor")[2]
    code, rest = section.partition("```python\n")[2].split("```\n", 1)
    command, printed = rest.partition("```text\n$ refmaml ")[2].split("```", 1)[0].split("\n", 1)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 1

    def digits(text):
        return re.sub(r"\d\.\de-1[3-9]", "?", text)

    assert digits(capsys.readouterr().out) == digits(printed)
