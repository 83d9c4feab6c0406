"""docs/methods.md: a row for each method of the table, and figures from results."""

import inspect
import json
import re
from pathlib import Path

import pytest

from refmaml.methods.table import TABLE

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/methods.md"
# What the lectures name beside the methods of refmaml's own table.
NAMED = (
    "bias transformation", "per-step batch-norm", "Hessian-free", "early stopping", "NTM", "MANN",
    "SNAIL", "Meta Networks", "DEML", "Auto-Meta", "Learned optimisers", "Universality",
    "PLATIPUS", "BMAML", "ES-MAML",
)  # fmt: skip
COLUMNS = ("method", "formula", "file", "cost", "memory", "published by", "there", "here")
FIGURE = re.compile(r"([\d.]+(?: \+- [\d.]+)?) \(\[(\w+)\]\(\.\./(benchmarks/[^)]+)\)\)")


def rows(text):
    """{first cell: {column: cell}} of the table of methods."""
    lines = text.split("| method |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in cells}


def written(method, path):
    """How a result of a method stands on the page."""
    record = json.loads((ROOT / path).read_text())
    if "rows" not in record:
        result = record["evaluations"]["transductive"]
        return f"{100 * result['accuracy']:.1f} +- {100 * result['interval']:.1f}"
    errors = record["rows"][0]["errors"][method]
    cell = errors["5"] if "5" in errors else errors["0"]
    digits = 3 if cell["mean"] < 0.1 else 2
    return f"{cell['mean']:.{digits}f} +- {cell['interval']:.{digits}f}"


def wrong_figures(text):
    """(method, figure) of each figure of the last column that is not its file's."""
    return [
        (entry.name, figure)
        for entry in TABLE
        for figure, kind, path in FIGURE.findall(rows(text)[first_cell(entry)]["here"])
        if kind in ("Omniglot", "waves") and figure != written(entry.name, path)
    ]


def first_cell(entry):
    return f"{entry.title} (`{entry.name}`)"


def test_each_method_of_the_table_has_a_row_and_no_other_has():
    assert set(rows(PAGE.read_text())) == {first_cell(entry) for entry in TABLE}


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_a_row_names_the_file_of_the_method_s_class(entry):
    row = rows(PAGE.read_text())[first_cell(entry)]
    source = Path(inspect.getsourcefile(entry.cls)).relative_to(ROOT).as_posix()
    assert row["file"] == f"`{source}`"
    assert all(row.values())


def test_results_are_those_of_their_files():
    text = PAGE.read_text()
    assert wrong_figures(text) == []
    results = [row["here"] for row in rows(text).values() if row["here"] != "-"]
    assert len(results) >= 4 and all(FIGURE.search(cell) for cell in results)


def test_a_wrong_figure_is_found():
    text = PAGE.read_text()
    figure = FIGURE.search(rows(text)["MAML (`maml`)"]["here"])[1]
    assert ("maml", "1.0 +- 0.1") in wrong_figures(text.replace(f"{figure} ([", "1.0 +- 0.1 (["))


@pytest.mark.parametrize("name", NAMED)
def test_every_system_that_the_lectures_name_has_a_row_or_a_paragraph(name):
    text = PAGE.read_text()
    assert re.search(rf"^\| {name}|^\*\*[^*]*{name}", text, re.M), name


def test_what_the_page_says_of_the_glyphs_is_measured():
    text = " ".join(PAGE.read_text().split())
    results = json.loads((ROOT / "benchmarks/methods/methods.json").read_text())["results"]
    found = {r["method"]: r for r in results}
    assert len(found) == 11 and len({(r["budget_minutes"], r["threads"]) for r in results}) == 1

    def accuracy(name, way="transductive"):
        return found[name]["evaluations"][way]["accuracy"]

    def each(name):
        return found[name]["processor_minutes"] / found[name]["steps"]

    solved = {"r2d2", "lrd2", "metaoptnet", "alpaca"}
    for way in ("transductive", "one at a time"):
        worst = min(accuracy(name, way) for name in solved)
        assert worst > max(accuracy(name, way) for name in set(found) - solved)
    for name in ("maml", "anil"):
        interval = found[name]["evaluations"]["transductive"]["interval"]
        assert accuracy("r2d2") - accuracy(name) < 2 * interval
    assert "four points" in text and 0.035 < accuracy("maml") - accuracy("fomaml") < 0.045
    assert "seven times" in text and 6.5 < each("meta-curvature") / each("maml") < 8
    assert "fifty times" in text and 45 < each("llama") / each("maml") < 55
    assert f"{found['meta-curvature']['steps']} and {found['llama']['steps']} of them" in text
    assert found["cnp"]["configuration"]["by_class"] is True
