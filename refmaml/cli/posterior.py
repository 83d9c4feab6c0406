"""`refmaml posterior CHECKPOINT`: adapted functions drawn from two posteriors.

A sine wave of which few points are known is ambiguous. Draws of the task's parameters,
under a prior as wide as the inner steps imply, and draws of theta, each adapted to the
same points, show how much. Both should agree where points are, and disagree elsewhere.
Sources: Grant et al. 2018; Finn, Xu, Levine 2018, figure 3.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from refmaml.cli import options
from refmaml.errors import expect

TASK, THETA = "the task's posterior", "theta's posterior, adapted"
COLORS = {TASK: "#5fa8d3", THETA: "#7fb069"}
RANGE, GRID = (-5, 5), 201  # of the curves: that of training, and how many points
NEAR = 0.5  # what is near to a point of the support set
NUMBERS = {"draws": 60, "tasks": 20, "waves": 50, "seed": 0}


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "posterior",
        help="draw adapted functions from the posteriors of a task and of theta",
        description="Adapts a net that was trained on sine waves to few points, and draws "
        "functions from the posterior of the task's parameters and from that of theta. Writes "
        "posterior.json and posterior.png.",
    )
    p.add_argument("checkpoint", metavar="CHECKPOINT", help="of refmaml train --data sinusoid")
    p.add_argument(
        "--points", nargs="+", default=["1", "3", "10"], metavar="N",
        help="how many points are known, one column each (default 1 3 10)",
    )  # fmt: skip
    p.add_argument("--draws", default="60", metavar="N", help="functions (default 60)")
    p.add_argument(
        "--tasks", default="20", metavar="N", help="tasks that theta's posterior knows (default 20)"
    )
    p.add_argument("--waves", default="50", metavar="N", help="waves of the table (default 50)")
    p.add_argument("--seed", default="0", metavar="N", help="of draws and waves (default 0)")
    p.add_argument(
        "--noise", default="0.1", metavar="V", help="the targets' variance (default 0.1)"
    )
    p.add_argument(
        "--precision", default="1000", metavar="TAU", help="of theta's prior (default 1000)"
    )
    p.add_argument("--out", default=".", metavar="DIR", help="the folder to write to (default .)")
    p.set_defaults(func=run)


class Settings(NamedTuple):
    """The command's numbers, read and checked."""

    points: tuple
    draws: int
    tasks: int
    waves: int
    seed: int
    noise: float
    precision: float


class Curves(NamedTuple):
    """A wave: x, its values and those of the adapted net (G,); {name: draws (R, G)}.

    points  (2, N): x and y of the points that are known
    """

    x: np.ndarray
    truth: np.ndarray
    points: np.ndarray
    adapted: np.ndarray
    draws: dict


def run(arguments):
    """Load, draw, write, print a line for each posterior and number of points."""
    from refmaml.training.evaluation import HELD_OUT_STEP

    settings = read(arguments)
    net, method, theta, distribution = load(arguments.checkpoint)
    most = max(settings.points)
    known = distribution.sample(
        settings.tasks, 10, 10, seed=settings.seed, step=HELD_OUT_STEP - 1, dtype=np.float64
    )
    thetas = draws_of_theta(net, method, theta, known, settings)
    waves = distribution.sample(
        settings.waves, most, 10, seed=settings.seed, step=HELD_OUT_STEP, dtype=np.float64
    )
    rows, shown = [], []
    for points in settings.points:
        found = [
            curves(net, method, theta, thetas, first_points(waves[t : t + 1], points), settings)
            for t in range(settings.waves)
        ]
        shown.append(found[0])
        rows += [figures(points, name, found) for name in (TASK, THETA)]
    write(Path(arguments.out), arguments.checkpoint, settings, rows, shown)
    for row in rows:
        print(
            f"{row['points']:3} points, {row['posterior']:26} deviation {row['near']:.3f} near "
            f"them, {row['far']:.3f} elsewhere; the wave within two of them "
            f"{row['covered']:.0%}; error {row['error']:.3f}"
        )
    return 0


def read(arguments):
    """The Settings. Raises ArgumentError."""
    whole = {name: number(arguments, name, int, 0 if name == "seed" else 1) for name in NUMBERS}
    real = {name: number(arguments, name, float, 0) for name in ("noise", "precision")}
    for name, value in real.items():
        expect(value > 0, f"--{name}", "a number > 0", repr(value))
    points = []
    for text in arguments.points:
        expect(text.isdecimal() and int(text) >= 1, "--points", "integers >= 1", repr(text))
        points.append(int(text))
    return Settings(tuple(points), **whole, **real)


def number(arguments, name, kind, least):
    """An option as a finite number. Raises ArgumentError."""
    text = getattr(arguments, name)
    try:
        value = kind(text)
    except ValueError:
        value = None
    wanted = f"{'an integer' if kind is int else 'a number'} >= {least}"
    fits = value is not None and least <= value < float("inf")
    expect(fits, f"--{name}", wanted, repr(text))
    return value


def load(path):
    """(net, method, theta, the distribution of tasks) of a run on sine waves.

    Raises ArgumentError for another run.
    """
    from refmaml.cli import problem
    from refmaml.methods.inner_loop import DifferentiatedLoop
    from refmaml.training import checkpoint

    now, saved = checkpoint.load(path)
    config = options.reread(saved) | {"kernels": "reference"}
    expect(config["data"] == "sinusoid", path, "a run on sine waves", f"--data {config['data']}")
    net, method = problem.make_net(config, None), problem.make_method(config)
    theta = np.asarray(now.meta, np.float64)
    known = isinstance(method, DifferentiatedLoop) and len(theta) == net.num_params
    wanted = "a method that differentiates its inner loop and learns theta alone"
    expect(known, path, wanted, f"--method {config['method']}")
    return net, method, theta, problem.make_tasks(config, "test", None)


def scale_of(net, examples, noise):
    """s in -log p(y) = s f: the loss f is (its scale) times the sum of squares."""
    return 1 / (2 * noise * net.loss_function.scale(examples, 1))


def draws_of_theta(net, method, theta, known, settings):
    """(draws, P) from theta's posterior, given tasks."""
    from refmaml.methods.posterior import theta_posterior

    scale = scale_of(net, known.x_query.shape[1], settings.noise)
    found = theta_posterior(net, method, theta, known, scale, settings.precision)
    return found.draw(settings.draws, settings.seed)


def first_points(wave, points):
    """A Batch of one task with the first so many points in its support set."""
    from refmaml.batch import Batch

    sets = wave.x_support[:, :points], wave.y_support[:, :points], wave.x_query, wave.y_query
    return Batch(*sets)


def curves(net, method, theta, thetas, wave, settings):
    """The Curves of one wave, a Batch of one task."""
    from refmaml.methods.posterior import adapted_draws, linearized_outputs, task_posterior

    x, y = wave.x_support, wave.y_support
    places = np.linspace(*RANGE, GRID)
    grid = places.reshape(1, -1, 1)
    scale = scale_of(net, x.shape[1], settings.noise)
    # As wide as the prior of K steps where the data says nothing. That prior itself may
    # not exist: a step overshoots, with a single point for instance.
    precision = scale / (method.inner_steps * np.mean(method.step_lengths))
    posterior = task_posterior(net, method, theta, x, y, scale, precision)
    of_task = posterior.draw(settings.draws, settings.seed)
    of_theta = adapted_draws(net, method, thetas, x, y)
    return Curves(
        places,
        wave_through(wave.x_query[0, :, 0], wave.y_query[0, :, 0], places),
        np.stack([x[0, :, 0], y[0, :, 0]]),
        outputs(net, posterior.mean[None], grid)[0],
        {
            TASK: linearized_outputs(net, of_task, posterior.mean, grid)[..., 0],
            THETA: outputs(net, of_theta, grid),
        },
    )


def outputs(net, w, grid):
    """The net's outputs (R, G) at parameters w (R, P)."""
    x = grid.repeat(len(w), axis=0)
    return net.forward(net.parameters.views(w), x, keep=False)[0][..., 0]


def wave_through(x, y, places):
    """a sin x + b cos x through points of a wave without noise, at other places."""
    (a, b), *_ = np.linalg.lstsq(np.stack([np.sin(x), np.cos(x)], axis=1), y, rcond=None)
    return a * np.sin(places) + b * np.cos(places)


def figures(points, name, found):
    """A row of the table: means over the waves in `found`.

    near, far   the draws' standard deviation within NEAR of a known point, and beyond
    covered     how much of the wave lies within two standard deviations of their mean
    error       root of the mean squared error of the draws' mean
    """
    near, far, covered, square = [], [], [], []
    for c in found:
        deviation, mean = c.draws[name].std(axis=0), c.draws[name].mean(axis=0)
        close = (abs(c.x[:, None] - c.points[0]) <= NEAR).any(axis=1)
        near.append(deviation[close].mean())
        far += [deviation[~close].mean()] if not close.all() else []
        covered.append((abs(c.truth - mean) <= 2 * deviation).mean())
        square.append(((c.truth - mean) ** 2).mean())
    values = {"near": near, "far": far, "covered": covered}
    row = {key: float(np.mean(value)) for key, value in values.items()}
    return {"points": points, "posterior": name, **row, "error": float(np.mean(square) ** 0.5)}


def write(folder, checkpoint, settings, rows, shown):
    """posterior.json and, if matplotlib is installed, posterior.png."""
    from refmaml.cli import report
    from refmaml.training.files import make_folder, write_json
    from refmaml.training.plot import can_draw

    make_folder(folder)
    about = {"checkpoint": checkpoint, **settings._asdict(), **report.circumstances()}
    write_json(folder / "posterior.json", {**about, "rows": rows})
    if can_draw(folder / "posterior.png"):
        picture(folder / "posterior.png", shown)


def picture(path, shown):
    """A row for each posterior, a column for each number of points."""
    from matplotlib.figure import Figure

    from refmaml.training.plot import INK, apply_style, save_figure

    figure = Figure(figsize=(3.6 * len(shown), 5.6), dpi=150, layout="constrained")
    grid = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey=True)
    for row, name in zip(grid, COLORS, strict=True):
        for axes, c in zip(row, shown, strict=True):
            axes.plot(c.x, c.draws[name].T, color=COLORS[name], alpha=0.25, linewidth=0.8)
            axes.plot(c.x, c.truth, "--", color=INK, linewidth=1.4, label="the wave")
            axes.plot(c.x, c.adapted, color="#c8553d", linewidth=1.6, label="the adapted net")
            axes.plot(*c.points, "o", color=INK, markersize=5, label="points known")
            apply_style(axes, "x" if name == THETA else "", name if axes is row[0] else "")
            many = c.points.shape[1]
            axes.set_title(f"{many} point{'s' * (many > 1)}", color=INK, fontsize=10)
    low, high = limits(shown)
    grid[0, 0].set_ylim(low, high)
    grid[0, -1].legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower left")
    save_figure(path, figure)


def limits(shown):
    """A range of y that has the waves and most of the draws."""
    draws = np.concatenate([np.ravel(a) for c in shown for a in c.draws.values()])
    low, high = np.percentile(draws, [0.5, 99.5])
    reach = max(abs(low), abs(high), *(abs(c.truth).max() for c in shown))
    return -1.05 * reach, 1.25 * reach
