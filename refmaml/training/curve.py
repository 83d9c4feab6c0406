"""The learning curve as a table and as a picture."""

import csv
import io
from importlib.util import find_spec
from math import isnan

import numpy as np

from refmaml.log import say
from refmaml.training.files import durable_write
from refmaml.training.rows import Row, Rows

INK, POINTS = "#33383d", 1000
DECADES = 250  # powers of ten that an axis can show, with a margin, in float64
WIDTH, HEIGHT = 4.6, 3.4  # of a panel, inches
# What a picture shows: {field of Row: (label, color, whether on a logarithmic axis)}.
PANELS = {
    "loss": ("query loss after adaptation", "#2a6f97", False),
    "accuracy": ("query accuracy after adaptation", "#c8553d", False),
    "grad_norm": ("length of the meta-gradient", "#6a8d3a", True),
    "cg_residual": ("relative residual of CG", "#7b5ea7", True),
}


def write_csv(path, rows):
    """A line for each Row, numbers in the shortest form that reads back exactly; no accuracy: an empty cell; no CG residual at all: no
    such column.

    Raises DataError where `path` cannot be written.
    """
    text, names = io.StringIO(newline=""), Row._fields
    if np.isnan(as_table(rows).column("cg_residual")).all():
        names = tuple(name for name in names if name != "cg_residual")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    table.writerows(
        [["" if isnan(value) else repr(value) for value in row[: len(names)]] for row in rows]
    )
    with durable_write(path) as file:
        file.write(text.getvalue().encode())


def as_table(rows):
    """Some rows as Rows, without copying those that are."""
    return rows if isinstance(rows, Rows) else Rows(rows)


def smoothed(values, window):
    """The running mean of (n,) over `window` neighbours, fewer at both ends, (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start, stop = (
        np.maximum(places - window // 2, 0),
        np.minimum(places + window // 2 + 1, len(values)),
    )
    return (sums[stop] - sums[start]) / (stop - start)


def draw(axes, steps, values, color, label=None, log=False):
    """Faint points where they were measured, their running mean as a line, and one running standard deviation around it as a band.

    log  all of that for the logarithms of values > 0, on a logarithmic axis
    Of more than POINTS as many are shown, evenly; the mean and the band are of all.
    """
    if len(values) == 0:
        return
    steps, values = np.asarray(steps), np.log10(values) if log else np.asarray(values)
    center, shown, window = (
        np.mean(values),
        slice(None, None, max(1, len(values) // POINTS)),
        max(1, len(values) // 20),
    )
    mean = smoothed(values, window)
    spread = np.sqrt(np.maximum(0, smoothed((values - center) ** 2, window) - (mean - center) ** 2))
    steps, *curves = (a[shown] for a in (steps, values, mean, mean - spread, mean + spread))
    values, mean, low, high = (
        (10 ** np.clip(a, -DECADES, DECADES) for a in curves) if log else curves
    )
    axes.plot(steps, values, ".", color=color, alpha=0.25, markersize=3, markeredgewidth=0)
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(steps, mean, color=color, linewidth=1.8, label=label, solid_capstyle="round")
    if log:
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axes.yaxis.set_major_formatter(
            "{x:g}"
        )  # powers of ten in superscript take as long as all else
        axes.yaxis.set_minor_formatter("")


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
        say(f"refmaml: no {path}: matplotlib draws it, and is not installed")
    return here


def save_figure(path, figure):
    """A figure as PNG, by Agg whatever display there is. Raises DataError where `path` cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    with durable_write(path) as file:
        file.write(picture.getvalue())


def write_png(path, rows, title="", held_out=()):
    """Loss, accuracy where there is one, length of the meta-gradient, and CG residual where there is one, against the meta-step.

    held_out  (step, Evaluation) of evaluations, drawn with their intervals
    Raises DataError.
    """
    if not can_draw(path):
        return
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    values = {name: as_table(rows).column(name) for name in Row._fields}
    shown = [
        name
        for name in PANELS
        if name not in ("accuracy", "cg_residual") or np.isfinite(values[name]).any()
    ]
    figure = Figure(
        figsize=(WIDTH * len(shown), HEIGHT), dpi=150
    )  # by fixed margins: a layout engine takes longer than the drawing
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        label, color, log = PANELS[name]
        there = values[name] > 0 if log else np.isfinite(values[name])
        draw(axes, values["step"][there], values[name][there], color, log=log)
        points = [(step, e.mean, e.interval) for step, e in held_out if e.quantity == name]
        if points:
            steps, means, intervals = zip(*points, strict=True)
            axes.errorbar(
                steps,
                means,
                intervals,
                fmt="o",
                color=INK,
                markersize=4,
                capsize=3,
                label="held-out tasks",
            )
            axes.legend(frameon=False, fontsize=9, labelcolor=INK)
        tidy(axes, "meta-step", label)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.subplots_adjust(
        left=0.75 / WIDTH / len(shown),
        right=1 - 0.15 / WIDTH / len(shown),
        bottom=0.52 / HEIGHT,
        top=1 - 0.32 / HEIGHT,
        wspace=0.9 / (WIDTH - 0.9),
    )
    if title:
        figure.suptitle(title, color=INK, fontsize=10)
    save_figure(path, figure)
