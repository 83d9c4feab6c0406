"""Other libraries checked by the doctor: the committed results, adapters, crashes."""

import json
import re
import subprocess
import sys
from importlib import import_module
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


def test_docs_results_has_every_line_of_both_tables():
    from table import lines, rule_lines

    page, record = (ROOT / "docs" / "results.md").read_text(), committed("conformance.json")
    for line in lines(record) + rule_lines(record):
        assert f"\n{line}\n" in page, line


def test_the_committed_table_is_that_of_the_committed_run():
    from table import markdown

    assert (FOLDER / "conformance.md").read_text() == markdown(committed("conformance.json"))


def test_every_library_has_an_adapter_a_version_and_a_verdict_on_every_method():
    import run
    from table import METHODS

    record = committed("conformance.json")
    parts = [library["part"] for library in record["libraries"]]
    assert parts == list(run.LIBRARIES) and not record["absent"]
    for library in record["libraries"]:
        assert (
            library["versions"]
            and set(METHODS) <= set(library["methods"])
            and "failed" not in library
        )
        for result in library["methods"].values():
            assert result["verdict"] in ("right", "wrong", "absent") and result["diagnosis"]


def test_every_result_names_the_run_that_measured_it():
    record = committed("conformance.json")
    results = record["libraries"] + record["rules"]
    assert {result["run"] for result in results} == set(range(len(record["runs"])))
    for run in record["runs"]:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", run["date"]) and run["seconds"] > 0
        assert run["machine"] and run["versions"] and run["command"].startswith("python ")


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
        ({"verdict": "wrong", "errors": {"float64": {"a": 7e-6}}}, "**wrong**, 7.0e-06 off"),
    ],
)
def test_a_cell_has_the_number_of_correct_digits_or_the_error(result, expected):
    from table import cell

    assert cell(result) == expected


# ---- running -------------------------------------------------------------------------


# What the adapters import; learn2learn and betty cannot stand beside the others.
MODULES = {
    "torch_func": ("torch",),
    "higher_loop": ("torch", "higher"),
    "torchopt_meta": ("torch", "torchopt"),
    "jax_grad": ("jax",),
    "jaxopt_solvers": ("jax", "jaxopt"),
    "optax_loop": ("jax", "optax"),
}
METHODS = ("MAML", "first-order MAML", "ANIL", "Meta-SGD", "Reptile", "iMAML")


@pytest.mark.filterwarnings("ignore")  # deprecations inside the libraries
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "module",
    [pytest.param(m, marks=pytest.mark.frameworks(*needs)) for m, needs in MODULES.items()],
)
def test_an_adapter_is_right_on_quadratics_or_says_why_it_lacks_the_method(module, name):
    from worker import METHODS as GIVEN

    library = import_module(f"adapters.{module}").LIBRARY
    if name not in library.methods:
        assert library.absent[name]
        return
    report = rm.check_meta_gradient(
        library.methods[name],
        GIVEN[name],
        framework=library.framework,
        probes=("quadratic",),
        precision="float64",
        repeats=0,
    )
    assert report.ok, report


@needs_torch
@pytest.mark.parametrize("name", METHODS)
def test_the_adapter_of_the_pytorch_loop_is_right(name):
    from adapters.torch_loop import LIBRARY
    from worker import METHODS as GIVEN

    report = rm.check_meta_gradient(
        LIBRARY.methods[name], GIVEN[name], framework="torch", repeats=0, precision="float64"
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


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """run.py with a worker of a few lines, where optax is not installed."""
    import run

    (tmp_path / "worker.py").write_text(
        "import json, os, sys\n"
        "kind = 'rules' if sys.argv[3:] else 'methods'\n"
        "found = {'name': sys.argv[1], 'versions': {'x': '1'}, kind: {}}\n"
        "json.dump(found, open(sys.argv[2], 'w'))\n"
        "if sys.argv[1] == 'higher_loop':\n    sys.stderr.write('out of luck\\n'); os._exit(3)\n"
    )
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "optax" else object())
    out = tmp_path / "out"

    def measured(*only):
        assert run.main(["--only", *only, "--out", str(out)]) == 0
        return json.loads((out / "conformance.json").read_text())

    return measured


def test_a_library_that_crashes_loses_no_earlier_result_and_no_other_library(stand_in, capsys):
    record = stand_in("higher", "betty", "optax")
    assert [library.get("failed") for library in record["libraries"]] == [
        "exit status 3: out of luck",
        None,
    ]
    assert (
        record["absent"] == {"optax": "optax is not installed"}
        and "ended early" in capsys.readouterr().out
    )


def test_a_run_of_some_parts_keeps_the_results_of_all_others(stand_in):
    first = stand_in("jax", "betty")
    record = stand_in("rules")
    assert [result["part"] for result in record["libraries"]] == ["betty", "jax"]
    assert record["libraries"] == first["libraries"] and record["runs"][:1] == first["runs"]
    columns = ["rules:higher", "rules:TorchOpt", "rules:TorchOpt, default dtype float32"]
    assert [result["part"] for result in record["rules"]][:3] == columns
    assert all(result["run"] == 1 for result in record["rules"])
    assert record["absent"] == {"rules:optax": "optax is not installed"}
    record = stand_in("jax", "betty")  # of the first run nothing is left
    assert [run["command"].partition("--only ")[2] for run in record["runs"]] == [
        "rules",
        "jax betty",
    ]
    assert all(result["run"] == 1 for result in record["libraries"])
    assert all(result["run"] == 0 for result in record["rules"])


def test_results_of_another_schema_are_not_overwritten(tmp_path):
    (tmp_path / "conformance.json").write_text('{"schema": 1}')
    command = [sys.executable, FOLDER / "run.py", "--only", "optax", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("run.py: --out: expected results of")
    assert (tmp_path / "conformance.json").read_text() == '{"schema": 1}'


def test_an_unknown_library_is_one_clear_line(tmp_path):
    command = [sys.executable, FOLDER / "run.py", "--only", "tensorflow"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("run.py: --only: expected some of pytorch-loop, ")
