"""`refmaml train`: meta-train a net; leave its checkpoint, learning curve and held-out result."""
from contextlib import ExitStack
from pathlib import Path

from refmaml.cli import options, presets
from refmaml.errors import ArgumentError, expect

CHECKPOINT, CURVE, PICTURE = "checkpoint.npz", "curve.csv", "curve.png"
CONFIG, RESULT = "config.json", "result.json"
# What may be said anew on --resume: how far to go, and nothing that changes the steps themselves.
ANEW = ("steps", "minutes", "chunk", "eval_tasks", "eval_steps")


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser("train", help="meta-train a net", description="Meta-train a net; leave its "
                              "checkpoint, learning curve and held-out result in a folder.")
    options.add(p.add_argument_group("run"), ("out", "preset", "data_root", "download", "save_every", "plot", "tensorboard", "recompute",
                                              "threads"))
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
    now, config = ranks.from_first(lambda: resumed(given) if arguments.resume else (None, options.settle(given)))
    where = {name: given[name] for name in ("data_root", "download") if name in given}
    recipe, start, judge = prepared(ranks, given, config, where)
    now = now or start
    out = ranks.from_first(lambda: begun(now, start, given, config, arguments.resume))
    with ExitStack() as stack:
        with ranks.together():
            monitors = watching(out, now, given, config, stack) if ranks.rank == 0 else []
        now = trained(recipe, now, out, given, config, arguments.quiet, where, monitors)
        result = judge(now.meta)
        if ranks.rank == 0:
            conclude(out, now, config, result, monitors)


def prepared(ranks, given, config, where):
    """(Recipe, the Progress at step 0, what turns meta-parameters into an Evaluation)."""
    from refmaml.cli import launch, problem
    from refmaml.training.monitor import require_tensorboardx
    with ranks.together():
        options.refuse_strays(given, config)
        if "tensorboard" in given:
            require_tensorboardx()
    threads = launch.share_of_machine(ranks, config["kernels"], given.get("threads"))
    with ranks.together(), ranks.first_before_others():
        method, net = problem.make_method(config, given), problem.make_net(config, threads)
        recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", **where), ranks)
        start = recipe.start(net.init(config["seed"], config["dtype"]))
        return recipe, start, problem.make_judge(config, net, method, len(start.meta), ranks=ranks, **where)


def begun(now, start, given, config, resume):
    """The folder, after a first save: what cannot be written is said before any work."""
    from refmaml.cli import problem
    problem.check_fits(now, start, CHECKPOINT)
    out = folder(given, config, resume)
    save(out, now, config)
    return out


def watching(out, now, given, config, stack):
    """The monitors that were asked for, open until the ExitStack `stack` closes. Raises DataError."""
    from refmaml.training.monitor import Events, Picture
    monitors = []
    if "plot" in given:
        monitors.append(Picture(Path(given["plot"] or out / PICTURE), titled(config), now))
    if "tensorboard" in given:
        monitors.append(Events(given["tensorboard"], now))
        stack.callback(monitors[-1].close)
    return monitors


def trained(recipe, now, out, given, config, quiet, where, monitors):
    """The last Progress, saved now and then and seen by monitors; after a Ctrl-C KeyboardInterrupt says how to go on."""
    from refmaml.cli import launch, report
    from refmaml.training import train
    ranks = recipe.ranks
    keep = (lambda now: save(out, now, config)) if ranks.rank == 0 else None
    try:
        with report.progress(config["steps"], quiet or ranks.rank > 0) as show, ranks.interruptible():
            def see(now):
                for look in (show, *monitors):
                    look(now)
            return train(recipe, now, steps=config["steps"], minutes=config["minutes"], show=see,
                         save=keep, save_every=given.get("save_every", 60.0))
    except KeyboardInterrupt:
        place = f" --data-root {where['data_root']}" if "data_root" in where else ""
        raise KeyboardInterrupt(f"saved; to go on: {launch.program(ranks)} train --resume --out {out}{place}") from None


def resumed(given):
    """(Progress, configuration) to go on from. Raises DataError, ArgumentError for a contradicting option."""
    from refmaml.training import checkpoint
    expect("out" in given, "--out", "the folder of the run to go on with, beside --resume", "nothing")
    path = Path(given["out"]) / CHECKPOINT
    now, saved = checkpoint.load(path)
    saved = options.reread(saved)
    for name, value in (presets.PRESETS.get(given.get("preset"), {}) | given).items():
        fixed = name not in ANEW or (name == "steps" and saved["schedule"] != "constant")
        if name in saved and fixed and value != saved[name]:
            raise ArgumentError(f"{options.flag(name)}: expected {saved[name]} as in {path}, got {value}")
    return now, saved | {name: given[name] for name in ANEW if name in given}


def folder(given, config, resume):
    """The folder to write to: --out, or a new one of a telling name. Raises DataError and ArgumentError."""
    from refmaml.training.files import make_folder
    if "out" in given:
        path = Path(given["out"])
        expect(resume or not (path / CHECKPOINT).exists(), "--out",
               "a folder without a checkpoint, or --resume beside it", path)
        return make_folder(path, (CHECKPOINT, CURVE, PICTURE, CONFIG, RESULT))
    name, number = f"{config['data']}-{config['method']}", 1
    while (path := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return make_folder(path)


def save(out, now, config):
    """What a later process needs, and what people like to look at meanwhile."""
    from refmaml.training import checkpoint, curve, files
    checkpoint.save(out / CHECKPOINT, now, config)
    curve.write_csv(out / CURVE, now.rows)
    files.write_json(out / CONFIG, config)


def conclude(out, now, config, result, monitors):
    """The picture, the held-out result with all that it depends on, and one line for people."""
    from refmaml.cli import report
    from refmaml.training import curve, files
    title = titled(config)
    curve.write_png(out / PICTURE, now.rows, title, [(now.step, result)])
    for monitor in monitors:
        monitor.conclude(now, result)
    about = {"steps": now.step, "seconds": round(now.seconds, 3), "configuration": config}
    files.write_json(out / RESULT, report.record(result) | about | report.circumstances())
    print(f"{title}: {result} over {len(result.values)} held-out tasks, "
          f"after {now.step} steps in {now.seconds:.0f} s; see {out}")


def titled(config):
    """What a run is called."""
    return f"{config['method']} on {config['data']}"
