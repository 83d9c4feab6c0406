"""Inner Adam, momentum and RMSprop of higher, TorchOpt and optax, and their table."""

import json
from pathlib import Path

import pytest

import refmaml as rm

ROOT = Path(__file__).parent.parent
RECORD = json.loads((ROOT / "benchmarks" / "update_rules.json").read_text())
MODULES = {
    "higher": ("torch", "higher"),
    "TorchOpt": ("torch", "torchopt"),
    "TorchOpt, default dtype float32": ("torch", "torchopt"),
    "TorchOpt, use_accelerated_op": ("torch", "torchopt"),
    "optax": ("jax", "optax"),
}
RIGHT = 1e-11
CELLS = [
    pytest.param(
        row["case"],
        row["silent"],
        library,
        error,
        marks=pytest.mark.frameworks(*MODULES[library]),
        id=f"{library}, {row['case']}{', silent' * row['silent']}",
    )
    for row in RECORD["rows"]
    for library, error in row["errors"].items()
]


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "conformance")


@pytest.mark.filterwarnings("ignore:Differentiable RMSprop")
@pytest.mark.parametrize("case,silent,library,committed", CELLS)
def test_a_cell_of_the_table_is_measured_again(case, silent, library, committed):
    """Rounding stays below 1e-11; an error that is none of rounding is the same."""
    from update_rules import error_of

    found = error_of(library, case, silent)
    if committed is None or committed == "NaN":
        assert found == committed
    elif committed < RIGHT:
        assert found < RIGHT
    else:
        assert abs(found / committed - 1) < 0.05


def test_the_table_has_every_rule_and_every_library_of_the_script():
    from update_rules import COLUMNS, RULES, SILENT_RULES

    assert all(list(row["errors"]) == list(COLUMNS) == list(MODULES) for row in RECORD["rows"])
    assert [row["case"] for row in RECORD["rows"]] == [*RULES, *SILENT_RULES]
    assert all(eval(text, vars(rm)) == rule for text, rule in RULES.items())
    assert {"torch", "jax", "higher", "torchopt", "optax"} <= RECORD["versions"].keys()


def test_docs_results_has_every_line_of_the_table():
    from update_rules import lines

    page = (ROOT / "docs" / "results.md").read_text()
    for line in lines(RECORD):
        assert f"\n{line}\n" in page, line


def of(case, library, silent=False):
    (row,) = (r for r in RECORD["rows"] if r["case"] == case and r["silent"] == silent)
    return row["errors"][library]


def test_docs_results_says_how_many_cells_are_right_and_how_closely_they_agree():
    """Right is agreement to 1e-11; every other cell of the table is bold."""
    from update_rules import cell, lines

    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    errors = [e for row in RECORD["rows"] for e in row["errors"].values() if e is not None]
    right = [error for error in errors if error != "NaN" and error < RIGHT]
    wrong = len(errors) - len(right)
    assert f"{len(right)} of the {len(errors)} cells are right" in page
    assert f"agree to {max(right):.0e}; the {wrong} in bold are wrong" in page
    assert sum(line.count("**") // 2 for line in lines(RECORD)) == wrong
    assert cell(0.9 * RIGHT) == "9e-12" and cell(1.1 * RIGHT) == "**1.1e-11**"


def test_what_docs_results_says_of_the_libraries_is_what_was_measured():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for library in ("TorchOpt", "optax"):
        errors = [row["errors"][library] for row in RECORD["rows"] if not row["silent"]]
        assert all(error < 1e-13 for error in errors)
    assert f"{100 * of('Adam(eps=0.01)', 'higher'):.0f} % off at eps = 0.01" in page
    in_float32 = of("Adam()", "TorchOpt, default dtype float32")
    assert f"{in_float32:.0e} off" in page
    fused = [
        row["errors"]["TorchOpt, use_accelerated_op"]
        for row in RECORD["rows"]
        if not row["silent"] and row["errors"]["TorchOpt, use_accelerated_op"] is not None
    ]
    assert f"up to {100 * max(fused):.0f} % off" in page
    for library in ("TorchOpt", "optax"):
        assert of("Adam()", library, silent=True) == "NaN"
        assert of("Adam(eps_root=1e-08)", library, silent=True) < 1e-13
