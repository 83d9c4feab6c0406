"""`refmaml returns CHECKPOINT ...`: the mean return of policies over updates.

Runs of `refmaml train --data navigation`, and an untrained policy, adapt to the same
held-out goals by the same policy gradients, each update on a batch of its own. The best
return that any policy could have is drawn beside them.
Source: Finn, Abbeel, Levine 2017, figure 4.
"""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refmaml.cli import options
from refmaml.cli.presets import POLICIES
from refmaml.errors import expect

UNTRAINED, BEST = "untrained", "best possible"
COLORS = ("#c8553d", "#5fa8d3", "#7fb069", "#7b5ea7", "#b08a2e", "#33383d")
STYLES = ("-", "--", ":", "-.")
PICTURED, SHOWN = 3, 5  # goals in the picture of trajectories, and trajectories of each
ASIDE = 0.03  # between the lines of a picture, in updates
TICKS = (-0.5, 0, 0.5)  # of the picture of trajectories


class Start(NamedTuple):
    """A policy before it adapts: theta (P,), and the first step size."""

    policy: Any
    method: Any
    theta: np.ndarray
    inner_lr: float


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "returns",
        help="draw the return of trained policies over updates",
        description="Adapts the policies of several runs of --data navigation, and an "
        "untrained one, to the same held-out goals. Writes returns.csv, returns.png and "
        "paths.png, the trajectories of the first policy before and after its updates.",
    )
    p.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="of refmaml train")
    p.add_argument("--updates", default="3", metavar="N", help="updates (default 3)")
    p.add_argument("--tasks", default="40", metavar="N", help="held-out goals (default 40)")
    p.add_argument("--seed", default="0", metavar="N", help="of the goals (default 0)")
    p.add_argument(
        "--sigma", metavar="S", help="start every policy with this sigma (default: its own)"
    )
    p.add_argument("--out", default=".", metavar="DIR", help="the folder to write to (default .)")
    options.add(p, ("inner_lr",))
    p.set_defaults(func=run)


def run(arguments):
    """Load, adapt, write, print a line for each policy."""
    updates, tasks = (whole(arguments, name, 1) for name in ("updates", "tasks"))
    seed = whole(arguments, "seed", 0)
    given = options.typed(arguments)
    starts = load(arguments.checkpoints, given.get("inner_lr"), sigma_of(arguments.sigma))
    from refmaml.training.policy_evaluation import goals_and_noise

    draws = goals_and_noise(tasks, updates, seed)
    curves, paths = {}, []
    for name, start in starts.items():
        keep = PICTURED if name == next(iter(starts)) else 0
        curves[name], kept = adapted(start, draws, keep)
        paths += kept
    curves[BEST] = np.repeat(best(draws.goals)[None], updates + 1, axis=0)
    out = Path(arguments.out)
    write(out, curves)
    picture_of_paths(out / "paths.png", paths, draws.goals)
    for name, values in curves.items():
        numbers = "   ".join(f"{mean:.2f} +- {half:.2f}" for mean, half in map(interval, values))
        print(f"{name:24} {numbers}")
    return 0


def whole(arguments, name, least):
    """An option as an integer. Raises ArgumentError."""
    text = getattr(arguments, name)
    ok = text.isdecimal() and int(text) >= least
    expect(ok, f"--{name}", f"an integer >= {least}", repr(text))
    return int(text)


def sigma_of(text):
    """--sigma as a number > 0; None where it was not given. Raises ArgumentError."""
    if text is None:
        return None
    try:
        sigma = float(text)
    except ValueError:
        sigma = np.nan
    expect(0 < sigma < np.inf, "--sigma", "a finite number > 0", repr(text))
    return sigma


def load(paths, inner_lr=None, sigma=None):
    """{name: Start} of the checkpoints, and of an untrained policy.

    inner_lr, sigma  in place of the run's step size and the policy's own sigma
    Raises ArgumentError for a run on other data.
    """
    from refmaml.cli import policies
    from refmaml.cli.curves import free_name
    from refmaml.training import checkpoint

    expect(not isinstance(inner_lr, list), "--inner-lr", "one number", inner_lr)
    starts = {}
    for path in paths:
        now, saved = checkpoint.load(path)
        config = options.reread(saved)
        expect(config["data"] in POLICIES, path, "a run of --data navigation", config["data"])
        policy, method = policies.make_policy(config), policies.make_method(config)
        found = len(now.meta)
        expect(found == policy.num_params, path, f"{policy.num_params} parameters", found)
        rate = config["inner_lr"] if inner_lr is None else inner_lr
        name = free_name(f"{config['method']}, step {now.step}", starts)
        starts[name] = with_sigma(Start(policy, method, now.meta, rate), sigma)
    first = next(iter(starts.values()))
    theta = policy.init(config["seed"], config["dtype"])
    starts[UNTRAINED] = with_sigma(first._replace(policy=policy, theta=theta), sigma)
    return starts


def with_sigma(start, sigma):
    """The Start with another sigma; None: its own."""
    if sigma is None:
        return start
    theta = start.theta.copy()
    theta[start.policy.net.num_params :] = np.log(sigma)
    return start._replace(theta=theta)


def adapted(start, draws, keep=0):
    """(returns (updates + 1, T), Trajectories of the first `keep` tasks by update).

    Raises NonFiniteError where an update overflows.
    """
    from refmaml.training.policy_evaluation import returns_after_updates, step_sizes

    rates = step_sizes(start.inner_lr, len(draws.noise) - 1)
    method = replace(start.method, inner_lr=start.inner_lr)
    draws = draws._replace(noise=draws.noise.astype(start.theta.dtype))
    return returns_after_updates(start.policy, method, start.theta, draws, rates, keep)


def best(goals):
    """The largest return of any policy for each goal, (T,)."""
    from refmaml.tasks.navigation import best_returns

    return best_returns(goals.astype(np.float64))


def interval(values):
    """(mean, half-width of the 95 % interval) over tasks; 0 for one task."""
    from refmaml.training.evaluation import Evaluation

    found = Evaluation("return", values)
    return found.mean, found.interval if len(values) > 1 else 0.0


def write(folder, curves):
    """returns.csv and, if matplotlib is installed, returns.png."""
    from refmaml.training.files import durable_write, make_folder

    make_folder(folder)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["updates", *(part for name in curves for part in (name, f"{name}, +-"))])
    pairs = [[interval(values) for values in curve] for curve in curves.values()]
    for k, cells in enumerate(zip(*pairs, strict=True)):
        rows.writerow([k, *(number for cell in cells for number in cell)])
    with durable_write(folder / "returns.csv") as file:
        file.write(text.getvalue().encode())
    summary = {name: [interval(values) for values in curve] for name, curve in curves.items()}
    picture_of_returns(folder / "returns.png", [("", summary)])


def picture_of_returns(path, panels):
    """Panels (title, {name: [(mean, half-width), ...]}): a line for each name.

    Returns are negative; the axis has their logarithms. Lines stand a little beside
    each other, so that no interval hides another. Names that differ in ", seed N" alone
    have one color.
    """
    from refmaml.training.plot import can_draw

    if not can_draw(path):
        return
    from matplotlib.figure import Figure

    from refmaml.training.plot import INK, apply_style, save_figure, set_logarithmic

    most = max(len(curves) for _, curves in panels)
    size = (4.6 * len(panels), 3.6 + 0.19 * most)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (title, curves) in zip(grid, panels, strict=True):
        looks = looks_of(curves)
        for i, (name, values) in enumerate(curves.items()):
            (color, style), (means, halves) = looks[name], np.array(values).T
            places = np.arange(len(means)) + ASIDE * (i - (len(curves) - 1) / 2)
            axes.errorbar(
                places, -means, halves, color=color, linestyle=style,
                label=name, linewidth=1.5, capsize=2,
            )  # fmt: skip
        axes.set_xticks(range(len(means)))
        axes.set_title(title, color=INK, fontsize=10)
        set_logarithmic(axes)
        axes.yaxis.set_major_formatter("-{x:g}")
        label = "mean return" if axes is grid[0] else ""
        apply_style(axes, "policy-gradient updates", label)
        axes.legend(
            frameon=False, fontsize=8, labelcolor=INK, loc="upper left",
            bbox_to_anchor=(0, -0.17),
        )  # fmt: skip
    grid[0].invert_yaxis()  # of all panels: they share it
    save_figure(path, figure)


def looks_of(names):
    """{name: (color, style)}: all different, as long as a color has a style left."""
    looks, bases = {}, []
    for name in names:
        base = name.partition(", seed ")[0]
        if base not in bases:
            bases.append(base)
        color = COLORS[bases.index(base) % len(COLORS)]
        free = [style for style in STYLES if (color, style) not in looks.values()]
        looks[name] = color, (free or STYLES)[0]
    return looks


def picture_of_paths(path, batches, goals):
    """A panel for each update: some trajectories of some tasks, and their goals.

    batches  Trajectories of the first tasks after 0, 1, ... updates
    """
    from refmaml.training.plot import can_draw

    if not can_draw(path):
        return
    from matplotlib.figure import Figure

    from refmaml.training.plot import INK, apply_style, save_figure

    count = len(batches)
    figure = Figure(figsize=(3.2 * count, 3.5), dpi=150, layout="constrained")
    for k, batch in enumerate(batches):
        axes = figure.add_subplot(1, count, k + 1, aspect="equal")
        for i in range(len(batch)):
            for n in range(min(SHOWN, batch.axes[1])):
                s = batch.states[i, n][batch.mask[i, n] > 0]
                axes.plot(s[:, 0], s[:, 1], color=COLORS[i], linewidth=0.7, alpha=0.7)
            axes.plot(*goals[i], "*", color=COLORS[i], markersize=13, markeredgecolor=INK, zorder=3)
        axes.plot(0, 0, "o", color=INK, markersize=4)
        axes.set(xlim=(-0.9, 0.9), ylim=(-0.9, 0.9), xticks=TICKS, yticks=TICKS)
        apply_style(axes, "x", "y" if k == 0 else "")
        word = "update" if k == 1 else "updates"
        axes.set_title(f"{k} {word}", color=INK, fontsize=10)
    save_figure(path, figure)
