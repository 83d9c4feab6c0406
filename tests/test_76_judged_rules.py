"""Update rules of other libraries, judged by the doctor: the committed table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import refmaml as rm

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "conformance"
COLUMNS = json.loads((FOLDER / "conformance.json").read_text())["rules"]
MODULES = {"higher": ("torch", "higher"), "TorchOpt": ("torch", "torchopt")}
MODULES |= {"optax": ("jax", "optax")}
CELLS = [
    pytest.param(
        column["name"],
        rule,
        result,
        marks=pytest.mark.frameworks(*MODULES[column["name"].partition(",")[0]]),
        id=f"{column['name']}, {rule}",
    )
    for column in COLUMNS
    for rule, result in column["rules"].items()
    if result["verdict"] != "absent"
]


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def test_every_column_has_a_verdict_on_every_rule():
    import run
    from rules import COLUMNS as KNOWN
    from rules import RULES

    assert [column["part"] for column in COLUMNS] == list(run.RULES)
    assert [column["name"] for column in COLUMNS] == list(KNOWN)
    for column in COLUMNS:
        assert column["versions"] and list(column["rules"]) == list(RULES)
        assert "failed" not in column
        for result in column["rules"].values():
            assert result["verdict"] in ("right", "wrong", "absent") and result["diagnosis"]


def judged(column, rule, **options):
    """The doctor's report on one cell of the table, in float64."""
    from rules import COLUMNS as KNOWN
    from rules import RULES
    from worker import METHODS

    library, method = KNOWN[column].library, replace(METHODS["MAML"], rule=RULES[rule])
    given = {"framework": library.framework, "precision": "float64", "repeats": 0} | options
    return rm.check_meta_gradient(library.methods["MAML"], method, **given)


@pytest.mark.filterwarnings("ignore")  # deprecations inside the libraries
@pytest.mark.parametrize("column, rule, result", CELLS)
def test_a_verdict_of_the_table_is_given_again(column, rule, result):
    """On one of the four problems; the search for a name is cut short."""
    report = judged(column, rule, probes=("quadratic",), seconds=0.1)
    assert report.verdict == result["verdict"], str(report)


@pytest.mark.frameworks("torch", "higher")
@pytest.mark.filterwarnings("ignore")
def test_the_mistake_in_higher_s_adam_is_named_again():
    report = judged("higher", "Adam(eps=0.01)", probes=("quadratic", "mlp"))
    (column,) = (column for column in COLUMNS if column["name"] == "higher")
    assert report.diagnosis == column["rules"]["Adam(eps=0.01)"]["diagnosis"], str(report)


def test_what_docs_results_says_of_the_verdicts_is_what_was_measured():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    wrong = {
        (column["name"], rule): result["diagnosis"]
        for column in COLUMNS
        for rule, result in column["rules"].items()
        if result["verdict"] == "wrong"
    }
    of_higher = {text for (name, _), text in wrong.items() if name == "higher"}
    assert of_higher == {"eps is added before the bias correction"}
    assert all(f'"{text}"' in page for text in of_higher)
    others = {text for (name, _), text in wrong.items() if name != "higher"}
    assert len(others) == 1 and all("one whole inner step" in text for text in others)
    assert {rule for _, rule in wrong} == {rule for _, rule in wrong if rule.startswith("Adam")}
    plain = {name for name, _ in wrong}
    assert plain == {column["name"] for column in COLUMNS} - {"TorchOpt", "optax"}
