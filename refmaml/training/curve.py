"""The learning curve as a table and as a picture."""
import csv
import io
import sys
from importlib.util import find_spec
from math import isnan

import numpy as np

from refmaml.training.files import durable_write
from refmaml.training.trainer import Row

INK, LINES = "#33383d", ("#2a6f97", "#c8553d")


def write_csv(path, rows):
    """A line for each Row, numbers in the shortest form that reads back exactly; no accuracy: an empty cell.

    Raises DataError where `path` cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(Row._fields)
    table.writerows([["" if isnan(value) else repr(value) for value in row] for row in rows])
    with durable_write(path) as file:
        file.write(text.getvalue().encode())


def smoothed(values, window):
    """The running mean of (n,) over `window` neighbours, fewer at both ends, (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = np.maximum(places - window // 2, 0), np.minimum(places + window // 2 + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def draw(axes, steps, values, color, label=None):
    """Faint points where they were measured, and their running mean as a line."""
    axes.plot(steps, values, ".", color=color, alpha=0.25, markersize=3, markeredgewidth=0)
    axes.plot(steps, smoothed(values, max(1, len(values) // 20)), color=color, linewidth=1.8, label=label,
              solid_capstyle="round")


def tidy(axes, xlabel, ylabel):
    """The house's look: no box, a light grid behind."""
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b5babf")
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e8eaec", linewidth=0.8)
    axes.set_axisbelow(True)


def can_draw(path):
    """Whether matplotlib is here; if not, a line on stderr says which picture there will not be."""
    here = find_spec("matplotlib") is not None
    if not here:
        print(f"refmaml: no {path}: matplotlib draws it, and is not installed", file=sys.stderr)
    return here


def save_figure(path, figure):
    """A figure as PNG, by Agg whatever display there is. Raises DataError where `path` cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    with durable_write(path) as file:
        file.write(picture.getvalue())


def write_png(path, rows, title=""):
    """Loss, and accuracy where there is one, against the meta-step. Raises DataError."""
    if not can_draw(path):
        return
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
    values = {name: np.array([getattr(row, name) for row in rows], float) for name in Row._fields}
    shown = ["loss"] + ["accuracy"] * bool(len(rows) and not np.isnan(values["accuracy"]).any())
    figure = Figure(figsize=(4.6 * len(shown), 3.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, name, color in zip(panels, shown, LINES, strict=False):
        draw(axes, values["step"], values[name], color)
        tidy(axes, "meta-step", f"query {name} after adaptation")
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if title:
        figure.suptitle(title, color=INK, fontsize=10)
    save_figure(path, figure)
