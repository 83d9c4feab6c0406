"""Functions drawn at random: the doctor calls no right one wrong, and names or places
the wrong ones (benchmarks/doctor_draws)."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "benchmarks" / "doctor_draws"
RECORD = json.loads((HERE / "draws.json").read_text())
NAMED_OR_PLACED = 0.9  # at least, of the wrong functions
CALLED_RIGHT = 0.03  # at most, of the wrong functions
FIRST = 10_000  # seeds that the committed run does not have


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


def judged(seeds, wrong, **options):
    from draws import draw
    from judge import judged as judge

    return [judge(draw(FIRST + seed, wrong, **options)) for seed in seeds]


def check_right(rows):
    assert [row for row in rows if row["verdict"] != "right"] == []


def check_wrong(rows):
    called_right = [row for row in rows if row["verdict"] == "right"]
    explained = [row for row in rows if row["correct"] in ("named", "placed")]
    assert len(called_right) <= CALLED_RIGHT * len(rows), called_right
    rest = [row for row in rows if row not in explained]
    assert len(explained) >= NAMED_OR_PLACED * len(rows), rest


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_no_right_function_in_numpy_is_called_wrong(part):
    check_right(judged(range(10 * part, 10 * part + 10), False, frameworks=("numpy",)))


@pytest.mark.slow
def test_wrong_functions_in_numpy_are_named_or_placed():
    check_wrong(judged(range(40), True, frameworks=("numpy",)))


@pytest.mark.frameworks("torch", "jax")
def test_right_and_wrong_functions_in_every_framework():
    check_right(judged(range(8), False))
    assert all(row["verdict"] != "right" for row in judged(range(8), True))


def test_the_committed_run_keeps_the_promises():
    rows = RECORD["rows"]
    check_right([row for row in rows if row["kind"] is None])
    check_wrong([row for row in rows if row["kind"] is not None])


def test_there_are_sixty_kinds_and_twenty_that_no_dictionary_has():
    from kinds import BY_FORM, RULES

    kinds = {kind.name: kind for form in BY_FORM.values() for kind in form}
    kinds |= {kind.name: kind for kind in RULES}
    assert len(kinds) >= 60
    assert sum(not kind.known for kind in kinds.values()) >= 20


def test_a_kind_of_mistake_changes_what_is_said():
    """The judgement itself, on verdicts made up here."""
    from judge import truth_of
    from kinds import FORWARD

    kind = FORWARD[0]
    assert truth_of(kind, {"verdict": "right", "said": ""}) == "called right"
    assert truth_of(kind, {"verdict": "wrong", "said": "one inner step too many"}) == "named"
    assert truth_of(kind, {"verdict": "wrong", "said": "first-order"}) == "neither"


def test_the_documents_say_what_the_committed_run_found():
    summary = RECORD["summary"]
    right, said = summary["right"]["right"], summary["said of the wrong"]
    wrong = sum(said.values())
    explained = (said["named"] + said["placed"]) / wrong
    text = " ".join((HERE.parents[1] / "docs" / "results.md").read_text().split())
    assert f"none of {right} right ones was called wrong" in text
    assert (
        f"of {wrong} wrong ones, of {summary['kinds']} kinds, {explained:.0%} were named or "
        f"placed, and {said['called right']} were called right" in text
    )
    called_right = [r for r in RECORD["rows"] if r["kind"] and r["verdict"] == "right"]
    assert all(row["misfit"] < 1 for row in called_right)  # they compute the right gradient
