"""docs/laplace.md: its table of posteriors is that of the committed result."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "laplace.md").read_text()
RECORD = json.loads((ROOT / "benchmarks" / "posterior" / "posterior.json").read_text())


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: f"{row['points']}")
def test_the_table_is_that_of_the_committed_result(row):
    figures = (f"{row[name]:.2f}" for name in ("near", "far"))
    line = (
        f"| {row['points']} | {row['posterior']} | {' | '.join(figures)} "
        f"| {row['covered']:.0%} | {row['error']:.2f} |"
    )
    assert line in PAGE, line


def test_the_text_says_what_the_table_shows():
    rows = {name: [] for name in ("the task's posterior", "theta's posterior, adapted")}
    for row in RECORD["rows"]:
        rows[row["posterior"]].append(row)
    task, theta = rows.values()
    covered = [row["covered"] for row in task]
    text = " ".join(PAGE.split())
    assert f"at {100 * min(covered):.0f} to {100 * max(covered):.0f} % of the places" in text
    for few, more in zip(task, task[1:], strict=False):
        assert few["points"] < more["points"] and few["far"] > more["far"]
    assert all(row["near"] < row["far"] for row in task + theta)
    assert all(a["covered"] > b["covered"] for a, b in zip(task, theta, strict=True))
    assert f"On {RECORD['waves']} held-out waves" in text
