"""docs/rl.md: its tables and figures are those of the committed results."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "rl.md").read_text()
EXACT = json.loads((ROOT / "benchmarks" / "policy_estimators.json").read_text())
RUNS = json.loads((ROOT / "benchmarks" / "navigation" / "navigation.json").read_text())

BANDIT = {
    "J_II exact": "J_II exact",
    "J_I exact": "J_I exact",
    "naive + score": "naive + score",
    "DiCE": "LVC, DiCE",
    "DiCE, exact baseline": "LVC, DiCE, exact baseline",
    "naive": "naive",
    "naive, exact baseline": "naive, exact baseline",
    "first order": "first order",
}
LINE = ("naive", "naive + baseline", "LVC", "DiCE", "first order")
FIELD = ("naive", "naive + baseline", "LVC + baseline", "DiCE + baseline", "first order")


def line(*cells):
    return f"| {' | '.join(cells)} |"


def bandit_lines():
    return [
        line(title, *(f"{value:.3f}" for value in EXACT["bandit"][name]))
        for name, title in BANDIT.items()
    ]


def spread(part):
    return f"{part['bias']:.4f} +- {part['interval']:.4f}"


def bias_lines():
    return [
        line(f"{row['N']}", f"{row['exact']:.4f}", spread(row["one batch"]),
             spread(row["independent"]))
        for row in EXACT["bias"]
    ]  # fmt: skip


def line_lines():
    def cell(value):
        return f"{value:.2f}" if value > 1e-3 else f"{value:.0e}"

    return [line(T, *(cell(row[name]) for name in LINE)) for T, row in EXACT["line"].items()]


def field_lines():
    def cell(row, name):
        noise = row["noise"].get(name)
        return f"{row['errors'][name]:.3f}" + (f" ({noise:.3f})" if noise else "")

    return [
        line(f"{row['horizon']}", f"{row['trajectories']:,}", *(cell(row, name) for name in FIELD))
        for row in EXACT["field"]
    ]


def returns(title, part):
    cells = (
        f"{mean:.2f} +- {half:.2f}"
        for mean, half in zip(part["return"], part["interval"], strict=True)
    )
    return line(title, *cells)


def over(part):
    """The mean over seeds, or the one seed that there is."""
    return part.get("over") or next(iter(part["each"].values()))


def navigation_lines():
    found = [returns(title, over(part)) for title, part in RUNS["equal"].items()]
    found += [returns(f"pretrained, {title}", part) for title, part in RUNS["pretrained"].items()]
    return found + [returns(title, part) for title, part in RUNS["estimators"].items()]


@pytest.mark.parametrize("lines", [bandit_lines, bias_lines, line_lines, field_lines])
def test_the_tables_are_those_of_the_committed_results(lines):
    for row in lines():
        assert row in PAGE, row


@pytest.mark.parametrize("row", navigation_lines())
def test_the_returns_are_those_of_the_committed_runs(row):
    assert row in PAGE, row


def test_the_bias_of_dice_is_c_over_n_and_vanishes_with_independent_batches():
    for row in EXACT["bias"]:
        one, other = row["one batch"], row["independent"]
        # 1.5 intervals: three of a thousand right means are further away.
        assert abs(one["bias"] - row["exact"]) <= 1.5 * one["interval"]
        assert abs(other["bias"]) <= 1.5 * other["interval"] < 0.1
        assert row["N"] * row["exact"] == pytest.approx(EXACT["bias"][0]["exact"], rel=1e-9)


def test_maml_is_within_three_of_the_published_returns():
    means = over(RUNS["equal"]["MAML"])["return"]
    assert abs(means[1] + 11.7) <= 3 and abs(means[3] + 3.2) <= 3


def test_a_run_takes_less_than_fifteen_minutes_of_a_core():
    minutes = [
        part["processor_minutes"] for name, part in RUNS["training"].items() if "maml" in name
    ]
    assert max(minutes) < 15
    words = f"{np.mean(minutes):.1f} minutes of one core"
    assert words in " ".join(PAGE.split()), words


def test_the_numbers_of_the_text_are_those_of_the_runs():
    text = " ".join(PAGE.split())
    assert f"after {RUNS['step']} meta-steps" in text
    assert f"{-RUNS['best_possible']:.2f} is the least that a walk can cost" in text
