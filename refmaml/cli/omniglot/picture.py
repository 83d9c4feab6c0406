"""The Omniglot table as a picture.

A panel for each protocol and kind of task; measured and published accuracies side by
side.
"""

from refmaml.cli.omniglot.protocols import COLUMNS, PROTOCOLS, PUBLISHED, rows_of
from refmaml.training.plot import INK, apply_style, can_draw, save_figure

MEASURED, ALONE, PUBLISHED_AS = "#c8553d", "#5fa8d3", "#8d99a6"
SHIFT = 0.2  # of the points of one method, up and down


def write_picture(path, results):
    """Draw results of cells.evaluate_cell.

    Raises DataError where `path` cannot be written.
    """
    if not can_draw(path):
        return
    from matplotlib.figure import Figure

    known = {(r["protocol"], r["column"], r["row"]): r for r in results}
    panels = [(p, c) for p in PROTOCOLS for c in COLUMNS if any(key[:2] == (p, c) for key in known)]
    across = min(2, len(panels))
    figure = Figure(
        figsize=(5.4 * across, 3.1 * -(-len(panels) // across) + 0.4), dpi=150, layout="constrained"
    )
    axes = figure.subplots(-(-len(panels) // across), across, squeeze=False).ravel()
    for place, (protocol, column) in zip(axes, panels, strict=False):
        panel(place, protocol, column, known)
    for place in axes[len(panels) :]:
        place.set_axis_off()
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    save_figure(path, figure)


def panel(axes, protocol, column, known):
    """Accuracy in per cent, with 95 % intervals; hollow for an unfinished run."""
    titles = rows_of(protocol)
    rows = [(place, row, known.get((protocol, column, row))) for place, row in enumerate(titles)]
    ways = {
        "transductive": (MEASURED, -SHIFT, "query examples together"),
        "one at a time": (ALONE, 0, "one at a time"),
    }
    for way, (color, shift, label) in ways.items():
        for place, _, result in rows:
            if result:
                e = result["evaluations"][way]
                axes.errorbar(
                    100 * e["accuracy"],
                    place + shift,
                    xerr=100 * e["interval"],
                    fmt="o",
                    color=color,
                    capsize=3,
                    markersize=5,
                    markerfacecolor=color if result["finished"] else "white",
                    label=label,
                )
                label = None  # one entry in the legend
    published = [PUBLISHED[row][column] for row in titles]
    axes.errorbar(
        [p.accuracy for p in published],
        [place + SHIFT for place in range(len(published))],
        xerr=[p.interval for p in published],
        fmt="D",
        color=PUBLISHED_AS,
        capsize=3,
        markersize=4,
        label="published",
    )
    apply_style(axes, "accuracy on held-out characters, %", "")
    axes.set_title(f"{COLUMNS[column]}, {PROTOCOLS[protocol]}", fontsize=10, color=INK)
    axes.set_yticks(range(len(titles)), list(titles.values()))
    axes.invert_yaxis()
