"""docs/rl.md: its tables and figures are those of the committed results."""

import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "rl.md").read_text()
TEXT = " ".join(PAGE.split())
EXACT = json.loads((ROOT / "benchmarks" / "policy_estimators.json").read_text())
FOLDER = ROOT / "benchmarks" / "navigation"
RUNS = json.loads((FOLDER / "navigation.json").read_text())
DIRECTIONS = json.loads((FOLDER / "directions.json").read_text())

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
        return f"{row['errors'][name]:.3f} ({chance(row, name):.3f})"

    return [
        line(f"{row['horizon']}", f"{row['trajectories']:,}", *(cell(row, name) for name in FIELD))
        for row in EXACT["field"]
    ]


def chance(row, name):
    """The error that Monte Carlo alone makes, of the estimator and of the truth."""
    return np.hypot(row["noise"].get(name, 0), row["noise"]["truth"])


def direction_lines():
    return [
        line(name, *(f"{part[key]:.2f}" for key in ("beside_naive", "repeats", "length")))
        for name, part in DIRECTIONS["estimators"].items()
    ]


def returns(title, part):
    cells = (
        f"{mean:.2f} +- {half:.2f}"
        for mean, half in zip(part["return"], part["interval"], strict=True)
    )
    return line(title, *cells)


def equal_lines():
    """The mean over three seeds, or each of the seeds that there are."""
    found = []
    for title, part in RUNS["equal"].items():
        each = {f"{title}, seed {seed}": values for seed, values in part["each"].items()}
        rows = {title: part["over"]} if "over" in part else each
        found += [returns(name, values) for name, values in rows.items()]
    return found


def navigation_lines():
    found = equal_lines()
    found += [returns(f"pretrained, {title}", part) for title, part in RUNS["pretrained"].items()]
    return found + [returns(title, part) for title, part in RUNS["estimators"].items()]


TABLES = (bandit_lines, bias_lines, line_lines, field_lines, direction_lines)


@pytest.mark.parametrize("lines", TABLES)
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


def test_dice_alone_is_right_in_smooth_navigation_and_pays_with_noise():
    """1.5 times the bracket is left to chance; others are further off than 3 times."""
    ratios = []
    for row in EXACT["field"]:
        errors, noise = row["errors"], row["noise"]
        assert errors["DiCE + baseline"] <= 1.5 * chance(row, "DiCE + baseline")
        for name in ("naive", "naive + baseline", "LVC + baseline", "first order"):
            one_step = row["horizon"] == 1 and name == "LVC + baseline"  # where LVC is DiCE
            assert one_step or errors[name] > 3 * chance(row, name)
        if row["horizon"] >= 20:
            for name in ("naive + baseline", "LVC + baseline"):
                assert errors[name] == pytest.approx(errors["first order"], rel=0.1)
        ratios.append(noise["DiCE + baseline"] / noise["naive + baseline"])
    assert f"{min(ratios):.1f} to {max(ratios):.1f} times" in TEXT


def test_maml_is_within_three_of_the_published_returns():
    means = RUNS["equal"]["MAML"]["over"]["return"]
    assert abs(means[1] + 11.7) <= 3 and abs(means[3] + 3.2) <= 3


def test_a_run_takes_less_than_fifteen_minutes_of_a_core():
    minutes = [
        part["processor_minutes"]
        for name, part in RUNS["training"].items()
        if name.startswith("maml-")
    ]
    assert max(minutes) < 15
    words = f"{np.mean(minutes):.1f} minutes of one core"
    assert words in TEXT, words


def test_the_numbers_of_the_text_are_those_of_the_runs():
    assert f"after {RUNS['step']} meta-steps" in TEXT
    assert f"{-RUNS['best_possible']:.2f} is the least that a walk can cost" in TEXT
    for name in ("alpha 0.1", "sigma 1"):
        assert f"{RUNS['pretrained'][f'step 100, {name}']['return'][3]:.1f}" in TEXT
    sigmas = [RUNS["pretrained"][f"step {stop}"]["sigma"] for stop in (20, 100)]
    assert "from 1 to {:.2f} after 20 meta-steps and {:.2f} after 100".format(*sigmas) in TEXT


def test_what_the_estimator_changes_and_what_it_does_not():
    """Directions and noise of meta-gradients differ; the returns of three do not."""
    repeats = {name: part["repeats"] for name, part in DIRECTIONS["estimators"].items()}
    assert repeats["naive"] > 0.2 > 0.1 > repeats["lvc"] > 0 > repeats["dice"]
    length = DIRECTIONS["estimators"]["dice"]["length"]
    assert f"{length:.1f} times as long" in TEXT
    found = {name: part["return"][3] for name, part in RUNS["estimators"].items()}
    naive = [value for name, value in found.items() if name.startswith("MAML, naive")]
    words = f"{found['MAML, LVC']:.1f}, the naive surrogate's three seeds {min(naive):.1f} to"
    assert f"{words} {max(naive):.1f}, the first order {found['first order']:.1f}" in TEXT
    trained = {name: part["return_in_training"] for name, part in RUNS["training"].items()}
    others = [value for name, value in trained.items() if name.startswith(("maml-", "lvc-"))]
    words = f"{trained['dice-0']:.1f} for DiCE and {trained['fomaml-0']:.1f} for the first order"
    assert f"{words}, against {min(others):.1f} to {max(others):.1f}" in TEXT
