"""`refmaml demo`: trains four methods from one start; each then adapts to unseen
scripts.
"""

import os
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from refmaml.cli import options
from refmaml.cli.run_folder import lock_folder, new_folder, refuse_overwriting
from refmaml.methods.table import BY_NAME

# The configuration of all methods, small enough for a minute on two cores. Compiling
# other kernels than the reference would take half of that.
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
# In the order of the table: {key: (title, options that differ from COMMON)}.
CONTESTANTS = {
    "untrained": ("untrained", {"method": "maml", "steps": 0}),
    "erm": (BY_NAME["erm"].title, {"method": "erm"}),
    "reptile": (
        BY_NAME["reptile"].title,
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
    "fomaml": (BY_NAME["fomaml"].title, {"method": "fomaml"}),
    "maml": (BY_NAME["maml"].title, {"method": "maml"}),
}
# The longest first, so that no core waits for it at the end.
STARTING_ORDER = ("maml", "reptile", "fomaml", "erm", "untrained")
STEPS, EVAL_TASKS, EVAL_QUERY = 250, 400, 5
TABLE, PICTURE, EXAMPLE = "demo.json", "demo.png", "task.png"
FILES = (TABLE, PICTURE, EXAMPLE, *(f"{key}.csv" for key in CONTESTANTS))


class Outcome(NamedTuple):
    """The result of a contestant.

    rows        its learning curve
    evaluation  its Evaluation on held-out scripts
    seconds     of training
    """

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
        "each net adapt to unseen scripts. Leaves pictures, curves and results.",
    )
    options.add(p, ("out", "steps", "eval_tasks"))
    p.add_argument("--quiet", action="store_true", help="no progress, only the table")
    p.set_defaults(func=run)


def run(arguments):
    """Train and evaluate all contestants, draw, print the table."""
    given = {"steps": STEPS, "eval_tasks": EVAL_TASKS} | options.typed(arguments)
    with ExitStack() as stack:
        out = lock_folder(new_folder(given.get("out"), "demo"), stack)
        refuse_overwriting(out, FILES, "the demo")
        write_results(out, given, arguments.quiet)


def write_results(out, given, quiet):
    """Train and evaluate; write everything to the folder `out`."""
    from refmaml.cli import pictures, problem, report
    from refmaml.training import curve, files

    # Before the worker processes start: each of them would render the same fonts.
    train, test = (
        problem.make_tasks(configuration("maml", given), split) for split in ("train", "test")
    )
    print(f"train: {train}\ntest:  {test}", flush=True)
    pictures.contact_sheet(out / EXAMPLE, test.sample(1, k_query=EVAL_QUERY))
    finished = {outcome.key: outcome for outcome in compete(given, quiet)}
    outcomes = [finished[key] for key in CONTESTANTS]
    for outcome in outcomes:
        curve.write_csv(out / f"{outcome.key}.csv", outcome.rows)
    pictures.comparison(out / PICTURE, outcomes)
    files.write_json(
        out / TABLE,
        {
            "results": {o.key: summary(o) for o in outcomes},
            "configurations": {key: configuration(key, given) for key in CONTESTANTS},
            **report.circumstances(),
        },
    )
    print(f"pictures, curves and results are in {out}\n\n{table(outcomes)}")


def configuration(key, given):
    """All options of a contestant."""
    given = COMMON | {name: given[name] for name in ("steps", "eval_tasks")} | CONTESTANTS[key][1]
    return options.settle(given) | {"steps": given["steps"]}  # steps may be 0 here


def compete(given, quiet):
    """An Outcome for each contestant, each in a process; as many at once as there are
    cores.
    """
    from multiprocessing import get_context

    from refmaml.cli import report

    spawn = get_context("spawn")
    jobs = [
        (key, configuration(key, given), quiet, place) for place, key in enumerate(STARTING_ORDER)
    ]
    with (
        one_thread_each(),
        spawn.Pool(min(report.cores(), len(jobs)), initialise_worker, (spawn.RLock(),)) as pool,
    ):
        return pool.starmap(run_contestant, jobs, chunksize=1)


@contextmanager
def one_thread_each():
    """A block in which new processes use one thread each, as there is one for each
    core.
    """
    names = [f"{library}_NUM_THREADS" for library in ("OPENBLAS", "OMP", "MKL", "NUMBA")]
    added = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def initialise_worker(lock):
    """In a new process: bars share a lock, and Ctrl-C is left to the parent."""
    import signal

    from refmaml.cli.streams import prepare_streams
    from refmaml.progress import tqdm_installed

    prepare_streams()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if tqdm_installed():
        from tqdm import tqdm

        tqdm.set_lock(lock)


def run_contestant(key, config, quiet, place):
    """Train with one configuration; adapt to held-out tasks as MAML does, for every
    method.
    """
    from refmaml.cli import problem, report
    from refmaml.training import train

    net, method, title = problem.make_net(config), problem.make_method(config), CONTESTANTS[key][0]
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train"))
    start = recipe.start(net.init(config["seed"], config["dtype"]))
    with report.progress(config["steps"], quiet or not config["steps"], title, place) as show:
        now = train(recipe, start, steps=config["steps"], show=show)
    alike = config | COMMON | {"method": "maml", "k_query": EVAL_QUERY}
    evaluator = problem.make_evaluator(alike, net, problem.make_method(alike), len(now.meta))
    return Outcome(key, title, now.rows, evaluator(now.meta), now.seconds)


def summary(outcome):
    """An Outcome as a JSON value."""
    from refmaml.cli import report

    training = {"steps": len(outcome.rows), "seconds": round(outcome.seconds, 3)}
    return report.record(outcome.evaluation) | training


def table(outcomes):
    """The printed table: accuracies on held-out tasks with their intervals."""
    tasks, width = len(outcomes[0].evaluation.values), max(len(o.title) for o in outcomes)
    head = (
        f"{tasks} tasks of held-out scripts, {COMMON['n_way']}-way {COMMON['k_shot']}-shot, "
        f"each net adapted by the same {COMMON['inner_steps']} step:"
    )
    lines = [
        f"  {o.title:<{width}}  {100 * o.evaluation.mean:5.1f} "
        f"+- {100 * o.evaluation.interval:3.1f} %"
        f"  after {len(o.rows):3d} meta-steps"
        for o in outcomes
    ]
    return "\n".join([head, *lines])
