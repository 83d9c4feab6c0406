"""Mistakes on nets that refmaml has no layers for, by their names: forty on each net in
PyTorch. Those in JAX and NumPy are in test_74_doctor_own_loss_*.py."""

import json
from collections import Counter
from pathlib import Path

import pytest
from own_net_tables import TABLES, TORCH, judged

import refmaml as rm

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "doctor_draws"
RECORD = json.loads((FOLDER / "own_nets.json").read_text())
FEW = ("Hessian twice", "last two steps", "a weight stays", "an outer step a task")
LEAST = {name: 25 for name in TORCH} | {"jax": 10, "numpy": 10}  # mistakes that are named


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("name", TORCH)
def test_right_code_is_right_to_1e_10(name):
    table = TABLES[name]()
    fn, given = table.function({}), table.given
    report = rm.check_meta_gradient(fn, table.method, repeats=1, **given)
    assert report.ok and report.results[0].worst.error < 1e-10


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("label", FEW)
def test_a_few_mistakes_are_named(label):
    row = judged(TABLES["lstm"](), label)
    assert (row["verdict"], row["result"]) == ("wrong", "named"), row


def check_rows(name, rows, left=0):
    """All wrong, none named falsely, and enough named where so many are left."""
    assert [row for row in rows if row["verdict"] != "wrong"] == []
    assert Counter(row["result"] for row in rows)["named"] + left >= LEAST[name]
    assert [row for row in rows if row["result"] == "a false name"] == []


@pytest.mark.long
@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("name", TORCH)
def test_at_least_25_mistakes_are_named_on_each_net_and_none_falsely(name):
    table = TABLES[name]()
    check_rows(name, [judged(table, label) for label in table.mistakes])


@pytest.mark.parametrize("name", RECORD["nets"])
def test_the_committed_run_names_as_many_and_the_page_says_so(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    from own_nets import TITLES, line

    net = RECORD["nets"][name]
    assert net["right"]["verdict"] == "right" and net["right"]["error"] < 1e-10
    assert line(net) in (ROOT / "docs" / "results.md").read_text() and net["title"] == TITLES[name]
    check_rows(name, net["rows"], net["mistakes"] - len(net["rows"]))
