"""Frozen batches drawn at random: the check of policies' meta-gradients has no false
name on them (benchmarks/doctor_draws/policies.py)."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "benchmarks" / "doctor_draws"
RECORD = json.loads((HERE / "policies.json").read_text())
FIRST = 5_000  # draws that the committed run does not have


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(FIRST, FIRST + 3))
def test_every_function_is_called_by_its_name(draw):
    from policies import judged

    found = judged(draw)
    assert {name: said for name, (result, said) in found.items() if result != "as expected"} == {}


def test_the_committed_run_has_100_draws_of_every_function_and_no_false_name():
    from policies import KINDS

    assert RECORD["summary"]["draws"] == 100
    assert set(RECORD["counts"]) == set(KINDS)
    for counts in RECORD["counts"].values():
        assert sum(counts.values()) == 100 and "a false name" not in counts
    assert RECORD["not as expected"] == []


def test_another_name_than_the_right_one_is_counted_as_false():
    from policies import KINDS, result_of

    from refmaml.checks import CheckReport

    kind = KINDS["wrong batch"]
    for verdict, said, result in (
        ("wrong", f"the meta-loss is on {kind.words}", "as expected"),
        ("wrong", "the log-probability is averaged over the action dimensions", "a false name"),
        ("right", "DiCE: it estimates the gradient of J_II", "a false name"),
        ("wrong", "it is none of the known estimators", "no name"),
    ):
        assert result_of(kind, CheckReport("rl_meta_gradient", verdict, said)) == result


def test_the_documents_say_what_the_committed_run_found():
    summary = RECORD["summary"]
    judged = summary["draws"] * summary["functions"]
    assert summary["as expected"] == judged
    for page in ("results.md", "checks.md"):
        text = " ".join((HERE.parents[1] / "docs" / page).read_text().split())
        assert (
            f"{summary['functions']} functions on {summary['draws']} frozen batches "
            f"drawn at random: all {judged} verdicts and names were as expected" in text
        )
