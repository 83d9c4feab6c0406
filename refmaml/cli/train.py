"""`refmaml train`: meta-train a net; leave its checkpoint, learning curve and held-out result."""
from contextlib import ExitStack
from pathlib import Path

from refmaml.cli import options, presets
from refmaml.cli.run_folder import CHECKPOINT, RESULT, RunFolder, claimed, new_folder, refuse_finished
from refmaml.errors import ArgumentError, NonFiniteError, expect

# What may be said anew on --resume: how far to go, and nothing that changes the steps themselves.
ANEW = ("steps", "minutes", "chunk", "eval_tasks", "eval_steps")


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser("train", help="meta-train a net", description="Meta-train a net; leave its "
                              "checkpoint, learning curve and held-out result in a folder.")
    options.add(p.add_argument_group("run"), ("out", "preset", "data_root", "download", "save_every", "recompute"))
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--quiet", action="store_true", help="no progress, only the result")
    for title, group in options.SAVED.items():
        options.add(p.add_argument_group(title), group)
    p.set_defaults(func=run)


def run(arguments):
    """Train, evaluate, write everything down."""
    from refmaml.cli import problem
    given = options.typed(arguments)
    where = {name: given[name] for name in ("data_root", "download") if name in given}
    with ExitStack() as stack:
        now, config, folder = begun(given, stack) if arguments.resume else (None, options.settle(given), None)
        options.refuse_strays(given, config)
        method, net = problem.make_method(config, given), problem.make_net(config)
        recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", **where))
        start = recipe.start(net.init(config["seed"], config["dtype"]))
        now = now or start
        problem.check_fits(now, start, CHECKPOINT)
        judge = problem.make_judge(config, net, method, len(start.meta), **where)
        if folder is None:
            folder = claimed(new_folder(given, config), stack)
            refuse_finished(folder)
        kept = RunFolder(folder, config, now.step if arguments.resume else None)
        kept.save(now)                                  # before any work: what cannot be written is said now
        conclude(kept, trained(kept, recipe, now, given, arguments.quiet, judge))


def begun(given, stack):
    """(Progress, configuration, folder) of the run to go on with, which no other process is in."""
    expect("out" in given, "--out", "the folder of the run to go on with, beside --resume", "nothing")
    from refmaml.training.files import make_folder
    folder = Path(given["out"])
    if (folder / CHECKPOINT).exists():
        claimed(make_folder(folder), stack)
    return *resumed(given, folder / CHECKPOINT), folder


def trained(kept, recipe, now, given, quiet, judge):
    """Meta-steps to the end, then the Evaluation; asked to stop, say how to go on; diverging, what is left."""
    from refmaml.cli import report
    from refmaml.cli.stopping import stopping
    from refmaml.training import train
    config, save_every = kept.config, given.get("save_every", 60.0)
    with stopping():
        try:
            with report.progress(config["steps"], quiet) as show:
                def see(now):
                    kept.seen = now
                    show(now)
                train(recipe, now, steps=config["steps"], minutes=config["minutes"], show=see, save=kept.save,
                      save_every=save_every, trouble=kept.trouble)
            kept.draw_curve()
            return judge(kept.seen.meta)
        except NonFiniteError as error:
            raise kept.diverged(error) from None
        except KeyboardInterrupt as stop:
            place = f" --data-root {given['data_root']}" if "data_root" in given else ""
            stop.args = (f"saved; to go on: refmaml train --resume --out {kept.path}{place}",)
            raise


def resumed(given, path):
    """(Progress, configuration) to go on from. Raises DataError, ArgumentError for a contradicting option."""
    from refmaml.training import checkpoint
    now, saved = checkpoint.load(path)
    saved = options.reread(saved)
    for name, value in (presets.PRESETS.get(given.get("preset"), {}) | given).items():
        fixed = name not in ANEW or (name == "steps" and saved["schedule"] != "constant")
        if name in saved and fixed and value != saved[name]:
            raise ArgumentError(f"{options.flag(name)}: expected {saved[name]} as in {path}, got {value}")
    return now, saved | {name: given[name] for name in ANEW if name in given}


def conclude(kept, result):
    """One line for people, and the held-out result with all that it depends on."""
    from refmaml.cli import report
    from refmaml.training import files
    config, now = kept.config, kept.seen
    print(f"{config['method']} on {config['data']}: {result} over {len(result.values)} held-out tasks, "
          f"after {now.step} steps in {now.seconds:.0f} s; see {kept.path}")
    about = {"steps": now.step, "seconds": round(now.seconds, 3), "configuration": config}
    files.write_json(kept.path / RESULT, report.record(result) | about | report.circumstances())
