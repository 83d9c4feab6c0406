"""The results of run.py as a picture: accuracy with intervals, best method first."""

import protocol

from refmaml.training.plot import INK, apply_style, save_figure

WAYS = (
    ("transductive", "#c8553d", "o", "query examples together"),
    ("one at a time", "#5fa8d3", "D", "one at a time"),
)


def draw(path, results):
    """A row for each method; nothing without results."""
    if not results:
        return
    from matplotlib.figure import Figure

    ordered = sorted(results, key=lambda r: -r["evaluations"]["transductive"]["accuracy"])
    figure = Figure(figsize=(6.4, 0.34 * len(ordered) + 1.3), dpi=150, layout="constrained")
    axes = figure.subplots()
    for shift, (way, color, marker, label) in zip((-0.13, 0.13), WAYS, strict=True):
        found = [result["evaluations"][way] for result in ordered]
        axes.errorbar(
            [100 * e["accuracy"] for e in found],
            [place + shift for place in range(len(ordered))],
            xerr=[100 * e["interval"] for e in found],
            fmt=marker, color=color, markersize=4.5, capsize=2.5, label=label,
        )  # fmt: skip
    apply_style(axes, "accuracy on held-out glyphs, %", "")
    axes.set_yticks(range(len(ordered)), [protocol.TITLES[r["method"]] for r in ordered])
    axes.invert_yaxis()
    axes.axvline(20, color="#b5babf", linewidth=1, linestyle=":")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    save_figure(path, figure)
