"""`refmaml train`: meta-train a net; leave its checkpoint, learning curve and held-out result."""

import os
import shlex
from contextlib import ExitStack
from pathlib import Path

from refmaml.cli import mpi, options
from refmaml.cli.run_folder import (
    CHECKPOINT,
    PICTURE,
    RESULT,
    RunFolder,
    claimed,
    new_folder,
    refuse_finished,
    titled,
)
from refmaml.errors import ArgumentError, NonFiniteError, expect

# What may be said anew on --resume: how far to go, and nothing that changes the steps themselves.
ANEW = ("steps", "minutes", "chunk", *options.SAVED["evaluation"])


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "train",
        help="meta-train a net",
        description="Meta-train a net; leave its "
        "checkpoint, learning curve and held-out result in a folder.",
    )
    options.add(
        p.add_argument_group("run"),
        (
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
        ),
    )
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--quiet", action="store_true", help="no progress, only the result")
    for title, group in options.SAVED.items():
        options.add(p.add_argument_group(title), group)
    p.set_defaults(func=run)


def run(arguments):
    """Train, evaluate, write everything down: on every rank, but for the writing."""
    ranks = arguments.ranks
    with ranks.together():
        given = options.typed(arguments)
    from refmaml.cli import problem

    with ExitStack() as stack:
        now, config, folder = ranks.from_first(
            lambda: begun(given, stack) if arguments.resume else (None, options.settle(given), None)
        )
        recipe, start, judge = prepared(ranks, given, config)
        now = now or start
        kept, monitors = NullRunFolder(folder, config), []
        with ranks.together():
            problem.check_fits(now, start, CHECKPOINT)
            if ranks.rank == 0:
                kept, monitors = opened(folder, given, config, now, arguments.resume, stack)
        result = trained(
            kept,
            recipe,
            now,
            judge,
            again(kept, ranks, given),
            minutes=config["minutes"],
            quiet=arguments.quiet,
            monitors=monitors,
            save_every=given.get("save_every", 60.0),
        )
        if ranks.rank == 0:
            conclude(kept, result, monitors)


def prepared(ranks, given, config):
    """(Recipe, the Progress at step 0, what turns meta-parameters into an Evaluation)."""
    from refmaml.cli import problem
    from refmaml.training.monitor import require_tensorboardx

    where = {name: given[name] for name in ("data_root", "download") if name in given}
    with ranks.together():
        options.refuse_strays(given, config)
        if "tensorboard" in given:
            require_tensorboardx()
    threads = mpi.share_of_machine(ranks, config["kernels"], given.get("threads"))
    with ranks.together(), ranks.first_before_others():
        method, net = problem.make_method(config, given), problem.make_net(config, threads)
        recipe = problem.make_recipe(
            config, net, method, problem.make_tasks(config, "train", **where), ranks
        )
        start = recipe.start(net.init(config["seed"], config["dtype"]))
        return (
            recipe,
            start,
            problem.make_judge(config, net, method, len(start.meta), ranks=ranks, **where),
        )


def begun(given, stack):
    """(Progress, configuration, folder) of the run to go on with, which no other process is in."""
    expect(
        "out" in given, "--out", "the folder of the run to go on with, beside --resume", "nothing"
    )
    from refmaml.training.files import make_folder

    folder = Path(given["out"])
    if os.path.exists(folder / CHECKPOINT):  # False for what no file system could hold, too
        claimed(make_folder(folder), stack)
    return *resumed(given, folder / CHECKPOINT), folder


class NullRunFolder(RunFolder):
    """The folder of a run to the ranks that leave the writing to the first."""

    def save(self, now):
        self.seen = now

    def write_curve(self):
        """Nothing."""

    draw_curve = write_curve

    def diverged(self, error):
        return error


def opened(folder, given, config, now, resume, stack):
    """(The run's folder, ours until the ExitStack `stack` closes, what looks on), after a first save, which is the last of what may fail:
    what cannot be written is said before any work, and then nothing is in the way of who tries again."""
    if folder is None:
        folder = claimed(new_folder(given, config), stack)
        refuse_finished(folder)
    kept = RunFolder(folder, config, now.step if resume else None)
    monitors = watching(kept, now, given, stack)
    kept.save(now)
    return kept, monitors


def watching(kept, now, given, stack):
    """The monitors that were asked for, open until the ExitStack `stack` closes. Raises DataError."""
    from refmaml.training.monitor import Events, Picture

    monitors = []
    if "plot" in given:
        monitors.append(
            Picture(Path(given["plot"] or kept.path / PICTURE), titled(kept.config), now)
        )
    if "tensorboard" in given:
        monitors.append(Events(given["tensorboard"], now))
        stack.callback(monitors[-1].close)
    return monitors


def trained(
    kept, recipe, now, then, again, *, minutes, quiet=False, title="", monitors=(), save_every=60.0
):
    """Meta-steps from `now` to the run's end or so many minutes in all; returns then(the meta-parameters).

    again  the command that goes on, for who stops the run; diverging, it says what is left
    """
    from refmaml.cli import report
    from refmaml.cli.graceful_stop import stopping
    from refmaml.training import train

    steps, ranks = kept.config["steps"], recipe.ranks
    with stopping():
        try:
            with (
                report.progress(steps, quiet or ranks.rank > 0, title, done=now.step) as show,
                ranks.interruptible(),
            ):

                def see(now):
                    kept.seen = now
                    for look in (show, *monitors):
                        look(now)

                train(
                    recipe,
                    now,
                    steps=steps,
                    minutes=minutes,
                    show=see,
                    save=kept.save,
                    save_every=save_every,
                    trouble=kept.trouble,
                )
            kept.draw_curve()
            return then(kept.seen.meta)
        except NonFiniteError as error:
            raise kept.diverged(error) from None
        except KeyboardInterrupt as stop:
            stop.args = (f"saved; to go on: {again}",)
            raise


def again(kept, ranks, given):
    """The command that goes on with a run."""
    place = ["--data-root", given["data_root"]] if "data_root" in given else []
    return f"{mpi.program(ranks)} train --resume --out {shlex.join([str(kept.path), *place])}"


def resumed(given, path):
    """(Progress, configuration) to go on from. Raises DataError, ArgumentError for a contradicting option."""
    from refmaml.training import checkpoint

    now, saved = checkpoint.load(path)
    saved, given = options.reread(saved), options.asked(given)
    for name, value in given.items():
        fixed = name not in ANEW or (name == "steps" and saved["schedule"] != "constant")
        if name in saved and fixed and value != saved[name]:
            raise ArgumentError(
                f"{options.flag(name)}: expected {saved[name]} as in {path}, got {value}"
            )
    return now, saved | {name: given[name] for name in ANEW if name in given}


def conclude(kept, result, monitors):
    """The held-out result with all that it depends on, the same in the pictures, and one line for people."""
    from refmaml.cli import report
    from refmaml.training import files

    config, now = kept.config, kept.seen
    about = {"steps": now.step, "seconds": round(now.seconds, 3), "configuration": config}
    files.write_json(kept.path / RESULT, report.record(result) | about | report.circumstances())
    kept.draw_curve([(now.step, result)])
    for monitor in monitors:
        monitor.conclude(now, result)
    print(
        f"{titled(config)}: {result} over {len(result.values)} held-out tasks, "
        f"after {now.step} steps in {now.seconds:.0f} s; see {kept.path}"
    )
