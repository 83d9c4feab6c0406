"""`refmaml train`: meta-train a net; leave its checkpoint, learning curve and held-out
result.
"""

import os
import shlex
from contextlib import ExitStack
from pathlib import Path

from refmaml.cli import mpi, options
from refmaml.cli.outputs import check_outputs
from refmaml.cli.presets import POLICIES
from refmaml.cli.run_folder import (
    CHECKPOINT,
    PICTURE,
    RESULT,
    NullRunFolder,
    RunFolder,
    lock_folder,
    new_folder,
    refuse_finished,
    run_title,
)
from refmaml.errors import ArgumentError, NonFiniteError, expect

# Options that --resume may change: how long to train, and nothing that changes the
# steps.
CHANGEABLE = ("steps", "minutes", "chunk", *options.SAVED["evaluation"])
RUN_OPTIONS = (
    "out",
    "preset",
    "config",
    "data_root",
    "download",
    "save_every",
    "plot",
    "tensorboard",
    "recompute",
    "threads",
)


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "train",
        help="meta-train a net",
        description="Meta-train a net; leave its "
        "checkpoint, learning curve and held-out result in a folder.",
    )
    options.add(p.add_argument_group("run"), RUN_OPTIONS)
    p.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    p.add_argument("--quiet", action="store_true", help="no progress, only the result")
    for title, group in options.SAVED.items():
        options.add(p.add_argument_group(title), group)
    p.set_defaults(func=run)


def run(arguments):
    """Train and evaluate on every rank; rank 0 writes the files."""
    ranks = arguments.ranks
    with ranks.shared_errors():
        given = options.typed(arguments)
    from refmaml.cli import problem

    with ExitStack() as stack:
        now, config, path = ranks.from_rank_0(
            lambda: (
                open_run(given, stack) if arguments.resume else (None, options.settle(given), None)
            )
        )
        recipe, start, evaluator = prepare(ranks, given, config, now)
        now = now or start
        folder, monitors = NullRunFolder(path, config), []
        with ranks.shared_errors():
            problem.check_vectors(now, start, CHECKPOINT)
            if ranks.rank == 0:
                folder = create_folder(path, given, config, now, arguments.resume, stack)
                monitors = open_monitors(folder, now, given, stack)
                folder.save(now)
        result = train_then(
            folder,
            recipe,
            now,
            evaluator,
            resume_command(folder, ranks, given),
            minutes=config["minutes"],
            quiet=arguments.quiet,
            monitors=monitors,
            save_every=given.get("save_every", 60.0),
        )
        if ranks.rank == 0:
            conclude(folder, result, monitors, recipe)


def prepare(ranks, given, config, now):
    """(Recipe, the Progress at step 0, a function meta-parameters -> Evaluation).

    now  the Progress of a checkpoint, whose size is checked before anything is
         allocated; None for a new run
    """
    from refmaml.cli import policies, problem
    from refmaml.training.monitor import require_tensorboardx

    if config["data"] in POLICIES:
        with ranks.shared_errors():
            return policies.prepare(ranks, given, config, now)
    place = {name: given[name] for name in ("data_root", "download") if name in given}
    with ranks.shared_errors():
        options.refuse_unused(given, config)
        if "tensorboard" in given:
            require_tensorboardx()
        problem.check_sizes(config, config["tasks"], now, CHECKPOINT)
    threads = mpi.assign_resources(ranks, config["kernels"], given.get("threads"))
    with ranks.shared_errors(), ranks.local_rank_0_first():
        method, net = problem.make_method(config, given), problem.make_net(config, threads)
        tasks = problem.make_tasks(config, "train", **place)
        recipe = problem.make_recipe(config, net, method, tasks, ranks)
        start = recipe.start(net.init(config["seed"], config["dtype"]))
        size = len(start.meta)
        evaluator = problem.make_evaluator(config, net, method, size, ranks=ranks, **place)
        return recipe, start, evaluator


def open_run(given, stack):
    """(Progress, configuration, folder) of the run to resume, which is locked."""
    expect(
        "out" in given, "--out", "the folder of the run to go on with, beside --resume", "nothing"
    )
    from refmaml.training.files import make_folder

    folder = Path(given["out"])
    # os.path: False for a name that no file system could hold, where Path raises.
    if os.path.exists(folder / CHECKPOINT):
        lock_folder(make_folder(folder), stack)
    return *load_run(given, folder / CHECKPOINT), folder


def load_run(given, path):
    """(Progress, configuration) to resume from.

    Raises DataError; ArgumentError for an option that contradicts the checkpoint.
    """
    from refmaml.training import checkpoint

    now, saved = checkpoint.load(path)
    saved, given = options.reread(saved), options.with_files(given)
    for name, value in given.items():
        fixed = name not in CHANGEABLE or (name == "steps" and saved["schedule"] != "constant")
        if name in saved and fixed and value != saved[name]:
            raise ArgumentError(
                f"{options.flag(name)}: expected {saved[name]} as in {path}, got {value}"
            )
    return now, saved | {name: given[name] for name in CHANGEABLE if name in given}


def create_folder(path, given, config, now, resume, stack):
    """The RunFolder, locked until the ExitStack `stack` closes. Raises DataError.

    With its first save, everything that may fail has been tried before the work begins.
    """
    if path is None:
        name = f"{config['data']}-{config['method']}"
        path = lock_folder(new_folder(given.get("out"), name), stack)
        refuse_finished(path)
    return RunFolder(path, config, now.step if resume else None)


def open_monitors(folder, now, given, stack):
    """The monitors of --plot and --tensorboard, open until the ExitStack `stack`
    closes.

    Raises ArgumentError, DataError.
    """
    from refmaml.training.monitor import Events, Picture

    monitors = []
    if "plot" in given:
        path = Path(given["plot"] or folder.path / PICTURE)
        inputs = {"--config": given.get("config")}
        check_outputs({"--plot": path}, inputs | {"the checkpoint": folder.path / CHECKPOINT})
        monitors.append(Picture(path, run_title(folder.config), now))
    if "tensorboard" in given:
        monitors.append(Events(given["tensorboard"], now))
        stack.callback(monitors[-1].close)
    return monitors


def train_then(folder, recipe, now, then, command, *, minutes, quiet=False, **options):
    """Train from `now` to the run's end, or `minutes` in all; return then(meta).

    command  the command that resumes the run; printed when a signal stops it
    options  of `train_in_folder`
    Raises NonFiniteError, which names the files that are left, where training diverges.
    """
    from refmaml.cli.graceful_stop import stop_on_signal

    quiet = quiet or recipe.ranks.rank > 0
    with stop_on_signal():
        try:
            train_in_folder(folder, recipe, now, minutes, quiet, **options)
            folder.draw_curve()
            return then(folder.latest.meta)
        except NonFiniteError as error:
            raise folder.diverged(error) from None
        except KeyboardInterrupt as stop:
            stop.args = (f"saved; to go on: {command}",)
            raise


def train_in_folder(folder, recipe, now, minutes, quiet, title="", monitors=(), save_every=60.0):
    """Train, show the progress and save into a RunFolder.

    title     of the progress bar
    monitors  called with each Progress
    """
    from refmaml.cli import report
    from refmaml.training import train

    steps = folder.config["steps"]
    with (
        report.progress(steps, quiet, title, done=now.step) as show,
        recipe.ranks.deferred_signals(),
    ):

        def update(now):
            folder.latest = now
            for monitor in (show, *monitors):
                monitor(now)

        train(
            recipe,
            now,
            steps=steps,
            minutes=minutes,
            show=update,
            save=folder.save,
            save_every=save_every,
            on_save_error=folder.report_save_error,
        )


def resume_command(folder, ranks, given):
    """The command that resumes a run."""
    place = ["--data-root", given["data_root"]] if "data_root" in given else []
    words = shlex.join([str(folder.path), *place])
    return f"{mpi.launch_command(ranks)} train --resume --out {words}"


def conclude(folder, result, monitors, recipe):
    """Write and draw the held-out result, and print it in one line."""
    from refmaml.cli import report
    from refmaml.cli.representation import measured, representation
    from refmaml.training import files

    config, now = folder.config, folder.latest
    learned, note = {}, ""
    if measured(config):
        learned = representation(config, recipe.net, recipe.method, now.meta)
        note = f", {learned['angle']:.3g} degrees from the tasks' subspace"
        learned = {"representation": learned}
    about = {"steps": now.step, "seconds": round(now.seconds, 3), "configuration": config}
    files.write_json(
        folder.path / RESULT, report.record(result) | learned | about | report.circumstances()
    )
    folder.draw_curve([(now.step, result)])
    for monitor in monitors:
        monitor.conclude(now, result)
    print(
        f"{run_title(config)}: {result} over {len(result.values)} held-out tasks, "
        f"after {now.step} steps in {now.seconds:.0f} s{note}; see {folder.path}"
    )
