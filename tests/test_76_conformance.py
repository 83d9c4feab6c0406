"""Other libraries checked by the doctor: the committed results, adapters, crashes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import refmaml as rm

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "conformance"
needs_torch = pytest.mark.frameworks("torch")


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def committed(name):
    return json.loads((FOLDER / name).read_text())


def percent(value):
    return f"{100 * value:.0f} %"


# ---- what was committed --------------------------------------------------------------


def test_docs_results_has_every_line_of_the_table():
    from table import lines

    page = (ROOT / "docs" / "results.md").read_text()
    for line in lines(committed("conformance.json")):
        assert f"\n{line}\n" in page, line


def test_the_committed_table_is_that_of_the_committed_run():
    from table import markdown

    assert (FOLDER / "conformance.md").read_text() == markdown(committed("conformance.json"))


def test_every_library_has_an_adapter_a_version_and_a_verdict_on_every_method():
    import run
    from table import METHODS

    record = committed("conformance.json")
    assert (
        len(record["libraries"]) + len(record["absent"]) == len(run.LIBRARIES)
        and record["machine"]
        and record["versions"]
    )
    for library in record["libraries"]:
        assert (
            library["versions"]
            and set(METHODS) <= set(library["methods"])
            and "failed" not in library
        )
        for result in library["methods"].values():
            assert result["verdict"] in ("right", "wrong", "absent") and result["diagnosis"]


def test_the_sentences_of_docs_results_on_the_demonstrations_hold():
    page, found = (
        " ".join((ROOT / "docs" / "results.md").read_text().split()),
        committed("demonstrations.json")["found"],
    )
    norms = [
        found["fused norms"][name]["reverse over forward"][1]
        for name in ("batch_norm", "layer_norm")
    ]
    assert (
        f"are {percent(norms[0])} and {percent(norms[1])} off under reverse over forward mode"
        in page
    )
    stacked = found["jit and max"]["stack(...).max(axis=0)"]
    assert (
        f"a meta-gradient {percent(stacked['jit'])} off in float64" in page
        and stacked["eager"] < 1e-14
    )
    assert all(
        errors["jit"] < 1e-14 for errors in found["jit and max, XLA without fusion"].values()
    )
    assert (
        f"{found['cg']['with the new residual']:.0e} instead of {found['cg']['as released']:.0e}"
        in page
    )
    for modes in found["fused norms"].values():
        assert modes["reverse over reverse"][2] < 1e-14 and modes["forward over reverse"][2] < 1e-14
        assert all(
            modes[mode][0] > 1e-3
            for mode in ("reverse over forward", "forward over forward", "third, all reverse")
        )


def test_the_results_of_learn2learn_s_own_tests_are_those_of_the_committed_run():
    page, planted = (
        (ROOT / "docs" / "results.md").read_text(),
        committed("own_tests.json")["planted"],
    )
    assert {name: result["doctor"] for name, result in planted.items()} == {
        "nothing": "right",
        "the inner gradient detached": "wrong",
        "H doubled": "wrong",
        "H's sign flipped": "wrong",
    }
    assert (
        all(result["passed"] == 18 and result["failed"] == 0 for result in planted.values())
        and "18 of 18" in page
    )


# ---- the table -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "result, expected",
    [
        (None, "-"),
        ({"verdict": "absent"}, "-"),
        ({"verdict": "failed"}, "failed"),
        (
            {
                "verdict": "right",
                "errors": {"float64": {"a": 2e-16, "b": 1.1e-15}, "float32": {"a": 3e-7}},
            },
            "14 / 6",
        ),
        ({"verdict": "right", "errors": {"float64": {"a": 0.0}}}, "16"),
        (
            {"verdict": "wrong", "errors": {"float64": {"a": 0.034, "b": 0.12}}},
            "**wrong**, 12 % off",
        ),
        ({"verdict": "wrong", "errors": {"float64": {"a": 140.0}}}, "**wrong**, 140 times off"),
    ],
)
def test_a_cell_has_the_number_of_correct_digits_or_the_error(result, expected):
    from table import cell

    assert cell(result) == expected


# ---- running -------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize(
    "name", ["MAML", "first-order MAML", "ANIL", "Meta-SGD", "Reptile", "iMAML"]
)
def test_the_adapter_of_the_pytorch_loop_is_right(name):
    from adapters.torch_loop import LIBRARY
    from worker import METHODS

    report = rm.check_meta_gradient(
        LIBRARY.methods[name], METHODS[name], framework="torch", repeats=0, precision="float64"
    )
    assert report.ok, report


@needs_torch
def test_an_adapter_with_its_graph_cut_would_be_called_wrong():
    from adapters.torch_loop import LIBRARY
    from worker import METHODS

    cut = LIBRARY.methods["first-order MAML"]
    report = rm.check_meta_gradient(
        cut, METHODS["MAML"], framework="torch", repeats=0, precision="float64"
    )
    assert report.verdict == "wrong" and "first-order" in report.diagnosis


def test_a_library_that_crashes_loses_no_earlier_result_and_no_other_library(
    tmp_path, monkeypatch, capsys
):
    import run

    (tmp_path / "worker.py").write_text(
        "import json, os, sys\n"
        "json.dump({'name': 'x', 'versions': {'x': '1'}, 'methods': {}}, open(sys.argv[2], 'w'))\n"
        "if sys.argv[1] == 'higher_loop':\n    sys.stderr.write('out of luck\\n'); os._exit(3)\n"
    )
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "optax" else object())
    assert run.main(["--only", "higher", "betty", "optax", "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "conformance.json").read_text())
    assert [library.get("failed") for library in record["libraries"]] == [
        "exit status 3: out of luck",
        None,
    ]
    assert (
        record["absent"] == {"optax": "optax is not installed"}
        and "ended early" in capsys.readouterr().out
    )


def test_an_unknown_library_is_one_clear_line(tmp_path):
    command = [sys.executable, FOLDER / "run.py", "--only", "tensorflow"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("run.py: --only: expected some of pytorch-loop, ")
