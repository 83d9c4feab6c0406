"""Draws extrapolation.png from extrapolation.json: errors by range, and over steps."""

import json
from pathlib import Path

from refmaml.training.plot import INK, apply_style, save_figure, set_logarithmic

HERE = Path(__file__).parent
# (name in the file, inner steps, label, colour, marker)
SHOWN = (
    ("predict 0", "0", "predict 0", "#b5babf", "_"),
    ("erm", "5", "ERM, 5 steps", "#8d99a6", "s"),
    ("maml", "5", "MAML, 5 steps", "#e09f3e", "o"),
    ("maml", "50", "MAML, 50 steps", "#c8553d", "D"),
    ("cnp", "0", "CNP", "#5fa8d3", "^"),
)
RANGE = (0.01, 100)  # of the errors shown: a step that diverges leaves the picture
OVER_STEPS = ("training range", "A 8-10", "phase 1.5-1.75 pi")
STYLES = ("-", "--", ":")


def by_range(axes, rows):
    """The error of each learner in each range, with intervals and each seed."""
    for i, (name, k, label, color, marker) in enumerate(SHOWN):
        at = [place + 0.14 * (i - 2) for place in range(len(rows))]
        cells = [row["errors"][name][k] for row in rows]
        means = [cell["mean"] for cell in cells]
        halves = [cell["interval"] for cell in cells]
        axes.errorbar(
            at, means, halves, fmt=marker, color=color, label=label, markersize=5, capsize=2
        )
        for x, cell in zip(at, cells, strict=True):
            axes.plot([x] * len(cell["seeds"]), cell["seeds"], ".", color=color, markersize=2.5)
    apply_style(axes, "", "mean squared error")
    set_logarithmic(axes)
    axes.set_ylim(*RANGE)
    names = [row["name"].replace(" pi", " π").replace(", ", ",\n") for row in rows]
    axes.set_xticks(range(len(rows)), names, rotation=30, ha="right", fontsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, ncols=2)


def over_steps(axes, rows):
    """The error of MAML and ERM after k steps; the CNP is a level."""
    chosen = [row for row in rows if row["name"] in OVER_STEPS]
    for row, style in zip(chosen, STYLES, strict=True):
        label = row["name"].replace(" pi", " π")
        for name, color in (("maml", "#c8553d"), ("erm", "#8d99a6")):
            cells = row["errors"][name]
            steps = [int(k) for k in cells]
            means = [cell["mean"] for cell in cells.values()]
            axes.plot(steps, means, style, color=color, linewidth=1.6,
                      label=f"{name.upper()}, {label}")  # fmt: skip
        level = row["errors"]["cnp"]["0"]["mean"]
        axes.axhline(level, linestyle=style, color="#5fa8d3", linewidth=1.4, label=f"CNP, {label}")
    apply_style(axes, "inner steps", "mean squared error")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.08, steps[-1])
    axes.set_xticks(steps, [str(k) for k in steps])
    set_logarithmic(axes)
    axes.set_ylim(*RANGE)
    axes.legend(frameon=False, fontsize=7, labelcolor=INK, ncols=1, loc="center left",
                bbox_to_anchor=(1.01, 0.5))  # fmt: skip


def main():
    from matplotlib.figure import Figure

    record = json.loads((HERE / "extrapolation.json").read_text())
    figure = Figure(figsize=(12.5, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    by_range(left, record["rows"])
    over_steps(right, record["rows"])
    save_figure(HERE / "extrapolation.png", figure)


if __name__ == "__main__":
    main()
