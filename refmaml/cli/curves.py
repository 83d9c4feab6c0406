"""`refmaml curves CHECKPOINT ...`: the error of several starts over inner steps.

MAML's start beside pretrained ones (runs of --method erm), the best of these, and an
untrained one, on the same held-out tasks with the same inner loop. On sine waves the
query points are also taken outside of the range of training.
Source: Finn, Abbeel, Levine 2017, figures 2 and 3.
"""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from refmaml.cli import options
from refmaml.cli.presets import IMAGES
from refmaml.errors import ArgumentError, expect

PRETRAINED, BEST, UNTRAINED = "erm", "best pretrained", "untrained"
COLORS = ("#c8553d", "#5fa8d3", "#7fb069", "#7b5ea7", "#b08a2e", "#33383d")
STYLES = ("-", "--", ":", "-.")
AT_ONCE = 25  # tasks that adapt side by side


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "curves",
        help="draw the error of trained starts over inner steps",
        description="Adapts the starts of several runs, and an untrained one, to the same "
        "held-out tasks by the same inner loop. Writes curves.csv and curves.png. Runs of "
        "--method erm are pretrained starts; of several, the best for each task is a curve too.",
    )
    p.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="of refmaml train")
    p.add_argument("--steps", default="10", metavar="N", help="inner steps (default 10)")
    p.add_argument("--tasks", default="100", metavar="N", help="held-out tasks (default 100)")
    p.add_argument(
        "--outside", nargs=2, default=("5", "8"), metavar=("LOW", "HIGH"),
        help="sinusoid: the range of the query points outside (default 5 8)",
    )  # fmt: skip
    p.add_argument("--out", default=".", metavar="DIR", help="the folder to write to (default .)")
    options.add(p, ("data_root",))
    p.set_defaults(func=run)


def run(arguments):
    """Load, adapt, write, print a line for each start."""
    steps, tasks = (whole(arguments, name) for name in ("steps", "tasks"))
    config, net, starts = load(arguments.checkpoints)
    sets = query_sets(config, tasks, arguments)
    curves = {}
    for place, batch in sets.items():
        errors = {name: adapted_errors(net, config, w, batch, steps) for name, w in starts.items()}
        pretrained = [e for name, e in errors.items() if name.startswith(PRETRAINED)]
        if len(pretrained) > 1:
            errors[BEST] = np.min(pretrained, axis=0)
        curves |= {(name, place): e.mean(axis=1) for name, e in errors.items()}
    write(Path(arguments.out), curves, quantity(config))
    for (name, place), curve in curves.items():
        print(f"{name:16} {place:8} step 0: {curve[0]:.4g}   step {steps}: {curve[-1]:.4g}")
    return 0


def whole(arguments, name):
    """An option as an integer >= 1. Raises ArgumentError."""
    text = getattr(arguments, name)
    expect(text.isdecimal() and int(text) >= 1, f"--{name}", "an integer >= 1", repr(text))
    return int(text)


def load(paths):
    """(configuration of the inner loop, net, {name: parameters}) of several runs.

    The inner loop is that of the first run that has one. Raises ArgumentError where the
    runs have other nets or other data.
    """
    from refmaml.cli import problem
    from refmaml.training import checkpoint

    runs = [(path, *checkpoint.load(path)) for path in paths]
    configs = [options.reread(saved) for _, _, saved in runs]
    config = next((c for c in configs if c["method"] != PRETRAINED), configs[0])
    # The reference kernels need no compilation; there are few tasks.
    nets = [problem.make_net(c | {"kernels": "reference"}, None) for c in configs]
    net, starts = nets[configs.index(config)], {}
    for (path, now, _), other, its_net in zip(runs, configs, nets, strict=True):
        same = other["data"] == config["data"] and its_net.shapes == net.shapes
        expect(same, path, f"the data and the net of {paths[0]}", f"{other['data']}, another net")
        name = free_name(other["method"], starts)
        starts[name] = np.asarray(now.meta[: net.num_params])
    starts[UNTRAINED] = net.init(config["seed"], np.dtype(config["dtype"]))
    return config, net, starts


def free_name(name, taken):
    """The name, with a number if it is taken."""
    names = [name, *(f"{name} {i}" for i in range(2, len(taken) + 3))]
    return next(n for n in names if n not in taken)


def query_sets(config, tasks, arguments):
    """{place: Batch} of the same tasks; on sine waves with query points outside too."""
    from refmaml.cli import problem
    from refmaml.training.evaluation import HELD_OUT_STEP

    root = getattr(arguments, "data_root", None)
    distribution = problem.make_tasks(config, "test", root)

    def draw(from_):
        return problem.sampler(from_, config, config["k_shot"])(tasks, HELD_OUT_STEP)

    found = {"inside": draw(distribution)}
    if config["data"] == "sinusoid":
        try:
            ends = tuple(float(text) for text in arguments.outside)
        except ValueError:
            raise ArgumentError("--outside: expected two numbers") from None
        # The same seed gives the same waves; only the points differ.
        far = draw(replace(distribution, x_range=ends))
        found["outside"] = with_queries(found["inside"], far)
    return found


def with_queries(inside, far):
    """Support sets of one batch, query sets of another, of the same tasks."""
    from refmaml.batch import Batch

    return Batch(inside.x_support, inside.y_support, far.x_query, far.y_query)


def quantity(config):
    """What the curves show."""
    return "query error" if config["data"] in IMAGES else "query loss"


def adapted_errors(net, config, start, batch, steps):
    """The query error after 0, 1, ... steps for each task, (steps + 1, tasks)."""
    from refmaml.methods.inner_loop_adjoint import step_sizes

    alpha = config["inner_lr"][0] if isinstance(config["inner_lr"], list) else config["inner_lr"]
    adapts = tuple(config["adapts"] or ("*",)), tuple(config["frozen"] or ())
    rates = step_sizes(net, alpha, *adapts, start.dtype)
    parts = []
    for first in range(0, len(batch.x_support), AT_ONCE):
        x, y, x_query, y_query = (
            a[first : first + AT_ONCE]
            for a in (batch.x_support, batch.y_support, batch.x_query, batch.y_query)
        )
        phi, found = start[None], []
        for k in range(steps + 1):
            if k:
                phi = phi - rates * net.gradient(phi, x, y)
            after = net.primal(phi, x_query, y_query, keep=False)
            found.append(after.loss if after.accuracy is None else 1 - after.accuracy)
        parts.append(np.array(found))
    return np.concatenate(parts, axis=1)


def write(folder, curves, title):
    """curves.csv and, if matplotlib is installed, curves.png."""
    from refmaml.training.files import durable_write, make_folder
    from refmaml.training.plot import can_draw

    make_folder(folder)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["steps", *(f"{name}, {place}" for name, place in curves)])
    rows.writerows(
        [k, *map(float, values)] for k, values in enumerate(zip(*curves.values(), strict=True))
    )
    with durable_write(folder / "curves.csv") as file:
        file.write(text.getvalue().encode())
    if can_draw(folder / "curves.png"):
        picture(folder / "curves.png", curves, title)


def picture(path, curves, title):
    """A panel for each place, a line for each start."""
    from matplotlib.figure import Figure

    from refmaml.training.plot import INK, apply_style, save_figure, set_logarithmic

    places = list(dict.fromkeys(place for _, place in curves))
    figure = Figure(figsize=(4.6 * len(places), 3.4), dpi=150, layout="constrained")
    for axes, place in zip(figure.subplots(1, len(places), squeeze=False)[0], places, strict=True):
        lines = {name: values for (name, at), values in curves.items() if at == place}
        for i, (name, values) in enumerate(lines.items()):
            color, style = COLORS[i % len(COLORS)], STYLES[i % len(STYLES)]
            axes.plot(values, style, color=color, label=name, linewidth=1.8)
        apply_style(axes, "inner steps", f"{title}, {place}" if len(places) > 1 else title)
        if title == "query loss" and min(map(np.min, lines.values())) > 0:
            set_logarithmic(axes)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    save_figure(path, figure)
