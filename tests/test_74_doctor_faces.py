"""The doctor's faces: its report in four forms, the command line and its exit statuses, the pytest plugin, what the documents show."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from implementations import MAML, maml, planted

import refmaml as rm
from refmaml.autodiff.formulas import why_not
from refmaml.cli import main

ROOT = Path(__file__).parent.parent
QUICK = {"probes": ("quadratic", "mlp"), "repeats": 0}


@pytest.fixture(scope="module")
def wrong():
    return rm.check_meta_gradient(planted(h=0.0), MAML, **QUICK)


@pytest.fixture(scope="module")
def right():
    return rm.check_meta_gradient(maml, MAML, **QUICK)


# ---- the report ------------------------------------------------------------------------------------------------------


def test_the_report_says_in_its_first_line_what_is_wrong_and_then_what_to_do(wrong):
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
    row = wrong.sittings[0].worst
    assert (
        f"{row.got:.6g} {row.expected:.6g}" in str(wrong)
        and row.error > 0.1
        and row.tolerance < 1e-11
    )


def test_json_holds_all_of_it(wrong, right):
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


def test_markdown_has_a_table_of_probes_and_one_of_parameters(wrong):
    lines = wrong.to_markdown().splitlines()
    assert lines[0].startswith("### ") and "WRONG: first-order" in lines[0]
    assert sum(line.startswith("|---") for line in lines) == 2
    for block in "\n".join(lines).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1


def test_junit_counts_what_failed(wrong, right):
    suite = ET.fromstring(wrong.to_junit())
    assert suite.get("failures") == "2" and len(suite.findall("testcase/failure")) == 2
    assert "first-order" in suite.find("testcase/failure").get("message")
    assert (
        ET.fromstring(right.to_junit()).get("failures") == "0"
        and ET.fromstring(right.to_junit()).get("tests") == "4"
    )


def test_importing_refmaml_does_not_import_the_doctor():
    code = (
        "import sys, refmaml; print([m for m in sys.modules if 'doctor' in m or 'pytest_plugin' in m]); refmaml.check_meta_gradient; "
        "print({'torch', 'jax', 'scipy', 'numba'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout.splitlines() == ["[]", "set()"], out.stdout + out.stderr


# ---- the command line ------------------------------------------------------------------------------------------------

CODE = """
def gradient(problem, params, batch, h=1.0):
    a, rows = problem.method.inner_lr, []
    for xs, ys, xq, yq in zip(*batch):
        phis = [params]
        for _ in range(problem.method.inner_steps):
            g = problem.gradient(phis[-1], xs, ys)
            phis.append({n: p - a * g[n] for n, p in phis[-1].items()})
        lam = problem.gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            Hv = problem.hvp(phi, xs, ys, lam)
            lam = {n: v - a * h * Hv[n] for n, v in lam.items()}
        rows.append(lam)
    return {n: sum(r[n] for r in rows) / len(rows) for n in params}

def first_order(problem, params, batch):
    return gradient(problem, params, batch, h=0.0)

def coarse(problem, params, batch):
    out = gradient(problem, params, batch)
    single = batch.x_query.dtype.itemsize == 4
    return {n: (g.view("int32") >> 13 << 13).view("float32") if single else g for n, g in out.items()}

def raises(problem, params, batch):
    raise RuntimeError("no")

number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def doctor(file, name, *options):
    what = ["--method", "maml", "--inner-lr", "0.1", "--inner-steps", "2"]
    return main(["doctor", f"{file}:{name}", *what, "--probes", "quadratic", *options])


@pytest.mark.parametrize(
    ("name", "status", "word"),
    [
        ("gradient", 0, "RIGHT"),
        ("first_order", 1, "WRONG: first-order"),
        ("coarse", 3, "INCONCLUSIVE"),
    ],
)
def test_the_exit_status_is_the_verdict(file, capsys, name, status, word):
    assert doctor(file, name) == status
    assert capsys.readouterr().out.startswith(word)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "function: expected a gradient on the quadratic probe, got RuntimeError: no"),
        ("number", "'number', which is not one"),
        ("absent", "'absent', which it does not have"),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_exit_status_2(file, capsys, name, words):
    assert doctor(file, name) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("refmaml: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["doctor", "mine.py"], "function: expected FILE.py:FUNCTION"),
        (["doctor", "absent.py:f"], "absent.py, which does not exist"),
        (["doctor", "{}:gradient", "--probes", "cubic"], "probes: expected some of"),
        (
            ["doctor", "{}:gradient", "--inner-steps", "0"],
            "--inner-steps: expected an integer >= 1",
        ),
        (["doctor", "{}:gradient", "--tol", "-1"], "--tol: expected a finite number > 0"),
        (["doctor", "{}:gradient", "--seed", "x"], "--seed: expected an integer >= 0"),
        (
            ["doctor", "{}:gradient", "--channels", "8"],
            "--net: expected a net that the options describe",
        ),
        (["doctor", "{}:gradient", "--layout", "NHWC"], "--layout: expected NAME=AXES"),
        (
            ["doctor", "{}:gradient", "--method", "erm", "--inner-lr", "0.1"],
            "--inner-lr: expected --method",
        ),
    ],
)
def test_wrong_usage_is_one_line(file, capsys, arguments, words):
    assert main([word.format(file) for word in arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_file_that_does_not_import_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert main(["doctor", f"{tmp_path}/broken.py:f"]) == 2
    assert "to import, got ModuleNotFoundError" in capsys.readouterr().err


def test_reports_are_written_where_asked_for_and_the_last_line_runs_it_again(
    file, capsys, tmp_path
):
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "markdown", "junit")}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    assert doctor(file, "first_order", *options, "--precision", "float64", "--seed", "3") == 1
    again = capsys.readouterr().out.splitlines()[-1]
    assert (
        again.startswith("  again: refmaml doctor ")
        and "--seed 3" in again
        and "--inner-steps 2" in again
    )
    assert json.loads(paths["json"].read_text())["about"]["again"] in again
    assert main(again.removeprefix("  again: refmaml ").split()) == 1
    assert (
        paths["markdown"].read_text().startswith("###")
        and ET.fromstring(paths["junit"].read_text()).get("failures") == "1"
    )
    assert doctor(file, "gradient", "--json", str(tmp_path / "absent" / "x.json")) == 2
    assert "--json: expected a file that can be written" in capsys.readouterr().err


# ---- the plugin ------------------------------------------------------------------------------------------------------

PLUGGED = """
import refmaml as rm
from mine import coarse, first_order, gradient

def test_right(refmaml_check):
    assert refmaml_check(gradient, rm.MAML(0.1, 2), probes=("quadratic",), repeats=0).ok

def test_wrong(refmaml_check):
    refmaml_check(first_order, rm.MAML(0.1, 2), probes=("quadratic",), repeats=0)

def test_unsure(refmaml_check):
    refmaml_check(coarse, rm.MAML(0.1, 2), probes=("quadratic",), repeats=0)
"""


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def test_the_plugin_fails_skips_and_passes_and_its_first_line_is_short(file, tmp_path, workers):
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "test_mine.py").write_text(PLUGGED)
    out = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "refmaml.pytest_plugin",
            "-p",
            "no:cacheprovider",
            *workers,
            "--refmaml-json",
            "all.json",
            "--junitxml",
            "junit.xml",
            "test_mine.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
    )
    assert "1 failed, 1 passed, 1 skipped" in out.stdout, out.stdout + out.stderr
    first = next(line for line in out.stdout.splitlines() if line.startswith("meta-gradient wrong"))
    assert len(first) < 80 and "first-order" in first and "Traceback" not in out.stdout
    records = json.loads((tmp_path / "all.json").read_text())
    assert {r["test"].partition("::")[2]: r["verdict"] for r in records} == {
        "test_right": "right",
        "test_wrong": "wrong",
        "test_unsure": "inconclusive",
    }
    properties = {p.get("value") for p in ET.parse(tmp_path / "junit.xml").iter("property")}
    assert {"right", "wrong", "inconclusive"} <= properties


def test_the_plugin_is_announced_to_pytest():
    import tomllib

    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "pytest11"
    ]
    assert entry == {"refmaml": "refmaml.pytest_plugin"}


# ---- what the documents show ------------------------------------------------------------------------------------------


def test_the_readme_s_example_prints_what_the_readme_says(tmp_path, capsys, monkeypatch):
    """To the digit but for errors of rounding, which are another machine's own: two columns of the first table, and the parameter's."""
    if reason := why_not("torch"):
        pytest.skip(reason)
    section = (ROOT / "README.md").read_text().partition("## The doctor")[2]
    code, rest = section.partition("```python\n")[2].split("```\n", 1)
    command, printed = rest.partition("```text\n$ refmaml ")[2].split("```", 1)[0].split("\n", 1)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 1

    def digits(text):
        return re.sub(r"\d\.\de-1[3-9]", "?", text)

    assert digits(capsys.readouterr().out) == digits(printed)


def test_the_list_prints_the_dictionary_with_a_repair_for_the_framework(capsys):
    assert main(["doctor", "--list", "--framework", "torch"]) == 0
    out = capsys.readouterr().out
    assert (
        "first-order: the second-order term is missing" in out
        and "create_graph=True" in out
        and out.count("\n") > 100
    )
    assert (
        main(["doctor"]) == 2 and "function: expected FILE.py:FUNCTION" in capsys.readouterr().err
    )
