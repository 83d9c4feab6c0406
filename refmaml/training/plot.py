"""The learning curve as a picture, and the style that all pictures share."""

import io
from importlib.util import find_spec

import numpy as np

from refmaml.log import log as log_line
from refmaml.training.curve import as_rows
from refmaml.training.files import durable_write
from refmaml.training.rows import Row

INK, MAX_POINTS = "#33383d", 1000
MAX_DECADES = 250  # powers of ten that an axis can show in float64, with a margin
WIDTH, HEIGHT = 4.6, 3.4  # of a panel, inches
# {field of Row: (label, color, whether on a logarithmic axis)}
PANELS = {
    "loss": ("query loss after adaptation", "#2a6f97", False),
    "accuracy": ("query accuracy after adaptation", "#c8553d", False),
    "grad_norm": ("length of the meta-gradient", "#6a8d3a", True),
    "cg_residual": ("relative residual of CG", "#7b5ea7", True),
    "inner_residual": ("relative residual of the inner solve", "#b08a2e", True),
}
OPTIONAL_PANELS = ("accuracy", "cg_residual", "inner_residual")  # without a value: left out


def running_mean(values, window):
    """The mean of (n,) over `window` neighbours, over fewer at both ends; (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    start = np.maximum(places - window // 2, 0)
    stop = np.minimum(places + window // 2 + 1, len(values))
    return (sums[stop] - sums[start]) / (stop - start)


def draw(axes, steps, values, color, label=None, log=False):
    """Draw values as faint points, their running mean as a line, and a band around it.

    The band is one running standard deviation wide on each side.

    log  take logarithms of the values, which are > 0, and use a logarithmic axis
    At most about MAX_POINTS points are drawn, evenly chosen; mean and band use all.
    """
    if len(values) == 0:
        return
    steps, values = np.asarray(steps), np.log10(values) if log else np.asarray(values)
    shown, window = slice(None, None, max(1, len(values) // MAX_POINTS)), max(1, len(values) // 20)
    center, mean = np.mean(values), running_mean(values, window)
    # Deviations from the center: squares of the values themselves would cancel.
    square = running_mean((values - center) ** 2, window) - (mean - center) ** 2
    spread = np.sqrt(np.maximum(0, square))
    steps, *curves = (a[shown] for a in (steps, values, mean, mean - spread, mean + spread))
    if log:
        curves = [10 ** np.clip(a, -MAX_DECADES, MAX_DECADES) for a in curves]
    values, mean, low, high = curves
    axes.plot(steps, values, ".", color=color, alpha=0.25, markersize=3, markeredgewidth=0)
    axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(steps, mean, color=color, linewidth=1.8, label=label, solid_capstyle="round")
    if log:
        set_logarithmic(axes)


def set_logarithmic(axes):
    """A logarithmic y axis with plain numbers."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    # Superscripts would take as much time as everything else.
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def apply_style(axes, xlabel, ylabel):
    """Labels, no box, a light grid behind."""
    axes.set_xlabel(xlabel, color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b5babf")
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e8eaec", linewidth=0.8)
    axes.set_axisbelow(True)


def can_draw(path):
    """Whether matplotlib is installed; if not, a line on stderr names the missing
    picture.
    """
    installed = find_spec("matplotlib") is not None
    if not installed:
        log_line(f"refmaml: no {path}: matplotlib draws it, and is not installed")
    return installed


def save_figure(path, figure):
    """Write a figure as PNG with the Agg backend, whatever the display.

    Raises DataError where `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    with durable_write(path) as file:
        file.write(picture.getvalue())


def write_png(path, rows, title="", held_out=()):
    """Draw loss, accuracy, length of the meta-gradient and residuals over meta-steps.

    Accuracy and residuals are left out where no row has them.

    held_out  (step, Evaluation) of evaluations, drawn with their intervals
    Raises DataError where `path` cannot be written.
    """
    if not can_draw(path):
        return
    from matplotlib.figure import Figure

    values = {name: as_rows(rows).column(name) for name in Row._fields}
    names = [
        name for name in PANELS if name not in OPTIONAL_PANELS or np.isfinite(values[name]).any()
    ]
    # Margins are fixed: a layout engine takes longer than the drawing.
    figure = Figure(figsize=(WIDTH * len(names), HEIGHT), dpi=150)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        draw_panel(axes, name, values["step"], values[name], held_out)
    figure.subplots_adjust(
        left=0.75 / WIDTH / len(names),
        right=1 - 0.15 / WIDTH / len(names),
        bottom=0.52 / HEIGHT,
        top=1 - 0.32 / HEIGHT,
        wspace=0.9 / (WIDTH - 0.9),
    )
    if title:
        figure.suptitle(title, color=INK, fontsize=10)
    save_figure(path, figure)


def draw_panel(axes, name, steps, values, held_out):
    """One panel of `write_png`: a field of Row, and its evaluations."""
    from matplotlib.ticker import PercentFormatter

    label, color, log = PANELS[name]
    drawable = np.isfinite(values) & (values > 0 if log else True)
    draw(axes, steps[drawable], values[drawable], color, log=log)
    points = [(step, e.mean, e.interval) for step, e in held_out if e.quantity == name]
    if points:
        at, means, intervals = zip(*points, strict=True)
        style = {"fmt": "o", "color": INK, "markersize": 4, "capsize": 3}
        axes.errorbar(at, means, intervals, label="held-out tasks", **style)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    apply_style(axes, "meta-step", label)
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
