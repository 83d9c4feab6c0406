"""`refmaml demo`: four methods from one start; then each adapts to scripts that none of them saw."""

import os
from contextlib import contextmanager
from typing import Any, NamedTuple

from refmaml.cli import options

# What all share: small enough for a minute on two cores, where compiling other kernels would take half of it.
COMMON = {
    "data": "glyphs",
    "n_way": 5,
    "k_shot": 1,
    "k_query": 3,
    "net": "conv4",
    "channels": 16,
    "loss_scale": "sum/K",
    "inner_lr": 0.4,
    "inner_steps": 1,
    "frozen": ["BatchNorm2d"],
    "tasks": 8,
    "optimizer": "adam",
    "lr": 1e-2,
    "schedule": "constant",
    "seed": 0,
    "kernels": "reference",
}
# In the order of the table: {key: (title, what it does differently)}.
CONTESTANTS = {
    "untrained": ("untrained", {"method": "maml", "steps": 0}),
    "erm": ("ERM", {"method": "erm"}),
    "reptile": (
        "Reptile",
        {
            "method": "reptile",
            "train_shots": 2,
            "support_order": "by_class",
            "k_query": 1,
            "inner_optimizer": "sgd",
            "inner_lr": 0.2,
            "inner_steps": 3,
            "frozen": [],
            "optimizer": "sgd",
            "lr": 1.0,
            "schedule": "linear",
        },
    ),
    "fomaml": ("first-order MAML", {"method": "fomaml"}),
    "maml": ("MAML", {"method": "maml"}),
}
# The longest first, so that no core waits for it at the end.
STARTING_ORDER = ("maml", "reptile", "fomaml", "erm", "untrained")
STEPS, EVAL_TASKS, EVAL_QUERY = 250, 400, 5


class Outcome(NamedTuple):
    """What a contestant leaves: its learning curve, its Evaluation on held-out scripts, its training time."""

    key: str
    title: str
    rows: list
    evaluation: Any
    seconds: float


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "demo",
        help="see MAML, first-order MAML, Reptile and ERM learn to learn",
        description="Train four methods on printed characters from one start, then let "
        "each net adapt to scripts it never saw. Leaves pictures, curves and figures.",
    )
    options.add(p, ("out", "steps", "eval_tasks"))
    p.add_argument("--quiet", action="store_true", help="no progress, only the table")
    p.set_defaults(func=run)


def run(arguments):
    """Train all, judge all, draw, print the table."""
    from refmaml.cli import pictures, problem, report
    from refmaml.training import curve, files

    given = {"out": "runs/demo", "steps": STEPS, "eval_tasks": EVAL_TASKS} | options.typed(
        arguments
    )
    out = files.make_folder(given["out"])
    # Here and not in the processes below, which would all draw the same fonts at once.
    train, test = (
        problem.make_tasks(configuration("maml", given), split) for split in ("train", "test")
    )
    print(f"train: {train}\ntest:  {test}", flush=True)
    pictures.contact_sheet(out / "task.png", test.sample(1, k_query=EVAL_QUERY))
    finished = {outcome.key: outcome for outcome in compete(given, arguments.quiet)}
    outcomes = [finished[key] for key in CONTESTANTS]
    for outcome in outcomes:
        curve.write_csv(out / f"{outcome.key}.csv", outcome.rows)
    pictures.comparison(out / "demo.png", outcomes)
    files.write_json(
        out / "demo.json",
        {
            "results": {o.key: summary(o) for o in outcomes},
            "configurations": {key: configuration(key, given) for key in CONTESTANTS},
            **report.circumstances(),
        },
    )
    print(f"pictures, curves and figures are in {out}\n\n{table(outcomes)}")


def configuration(key, given):
    """All of a contestant's options."""
    given = COMMON | {name: given[name] for name in ("steps", "eval_tasks")} | CONTESTANTS[key][1]
    return options.settle(given) | {"steps": given["steps"]}  # which may be 0 here


def compete(given, quiet):
    """An Outcome for each contestant, in processes: as many at once as there are cores."""
    from multiprocessing import get_context

    from refmaml.cli import report

    spawn = get_context("spawn")
    jobs = [
        (key, configuration(key, given), quiet, place) for place, key in enumerate(STARTING_ORDER)
    ]
    with (
        one_thread_each(),
        spawn.Pool(min(report.cores(), len(jobs)), prepare, (spawn.RLock(),)) as pool,
    ):
        return pool.starmap(compete_alone, jobs, chunksize=1)


@contextmanager
def one_thread_each():
    """Processes started within compute with one thread each; more would fight over the cores."""
    names = [f"{library}_NUM_THREADS" for library in ("OPENBLAS", "OMP", "MKL", "NUMBA")]
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def prepare(lock):
    """In a new process: bars take turns on the terminal, and Ctrl-C is the parent's business."""
    import signal

    from tqdm import tqdm

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(lock)


def compete_alone(key, config, quiet, place):
    """Train by one configuration, then adapt to held-out tasks as MAML does, whatever it was trained by."""
    from refmaml.cli import problem, report
    from refmaml.training import train

    net, method, title = problem.make_net(config), problem.make_method(config), CONTESTANTS[key][0]
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train"))
    start = recipe.start(net.init(config["seed"], config["dtype"]))
    with report.progress(config["steps"], quiet or not config["steps"], title, place) as show:
        now = train(recipe, start, steps=config["steps"], show=show)
    alike = config | COMMON | {"method": "maml", "k_query": EVAL_QUERY}
    judge = problem.make_judge(alike, net, problem.make_method(alike), len(now.meta))
    return Outcome(key, title, now.rows, judge(now.meta), now.seconds)


def summary(outcome):
    """An Outcome as JSON can hold it."""
    from refmaml.cli import report

    training = {"steps": len(outcome.rows), "seconds": round(outcome.seconds, 3)}
    return report.record(outcome.evaluation) | training


def table(outcomes):
    """Accuracies on held-out tasks with their intervals, aligned."""
    tasks, width = len(outcomes[0].evaluation.values), max(len(o.title) for o in outcomes)
    head = (
        f"{tasks} tasks of held-out scripts, {COMMON['n_way']}-way {COMMON['k_shot']}-shot, "
        f"each net adapted by the same {COMMON['inner_steps']} step:"
    )
    lines = [
        f"  {o.title:<{width}}  {100 * o.evaluation.mean:5.1f} +- {100 * o.evaluation.interval:3.1f} %"
        f"  after {len(o.rows):3d} meta-steps"
        for o in outcomes
    ]
    return "\n".join([head, *lines])
