"""`refmaml train`: meta-train a net; leave its checkpoint, learning curve and held-out result."""
from pathlib import Path

from refmaml.cli import options, presets
from refmaml.errors import ArgumentError, expect

CHECKPOINT, CURVE, PICTURE = "checkpoint.npz", "curve.csv", "curve.png"
CONFIG, RESULT = "config.json", "result.json"
# What may be said anew on --resume: how far to go, and nothing that changes the steps themselves.
ANEW = ("steps", "minutes", "chunk", *options.SAVED["evaluation"])


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser("train", help="meta-train a net", description="Meta-train a net; leave its "
                              "checkpoint, learning curve and held-out result in a folder.")
    options.add(p.add_argument_group("run"), ("out", "preset", "config", "data_root", "download", "save_every", "recompute"))
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--quiet", action="store_true", help="no progress, only the result")
    for title, group in options.SAVED.items():
        options.add(p.add_argument_group(title), group)
    p.set_defaults(func=run)


def run(arguments):
    """Train, evaluate, write everything down."""
    from refmaml.cli import problem, report
    from refmaml.training import train
    given = options.typed(arguments)
    now, config = resumed(given) if arguments.resume else (None, options.settle(given))
    options.refuse_strays(given, config)
    method, net = problem.make_method(config, given), problem.make_net(config)
    where = {name: given[name] for name in ("data_root", "download") if name in given}
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", **where))
    start = recipe.start(net.init(config["seed"], config["dtype"]))
    now = now or start
    problem.check_fits(now, start, CHECKPOINT)
    judge = problem.make_judge(config, net, method, len(start.meta), **where)
    out = folder(given, config, arguments.resume)
    save(out, now, config)                          # before any work: what cannot be written is said now
    try:
        with report.progress(config["steps"], arguments.quiet) as show:
            now = train(recipe, now, steps=config["steps"], minutes=config["minutes"], show=show,
                        save=lambda now: save(out, now, config), save_every=given.get("save_every", 60.0))
    except KeyboardInterrupt:
        place = f" --data-root {where['data_root']}" if "data_root" in where else ""
        raise KeyboardInterrupt(f"saved; to go on: refmaml train --resume --out {out}{place}") from None
    conclude(out, now, config, judge(now.meta))


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


def conclude(out, now, config, result):
    """The picture, the held-out result with all that it depends on, and one line for people."""
    from refmaml.cli import report
    from refmaml.training import curve, files
    title = f"{config['method']} on {config['data']}"
    curve.write_png(out / PICTURE, now.rows, title)
    about = {"steps": now.step, "seconds": round(now.seconds, 3), "configuration": config}
    files.write_json(out / RESULT, report.record(result) | about | report.circumstances())
    print(f"{title}: {result} over {len(result.values)} held-out tasks, "
          f"after {now.step} steps in {now.seconds:.0f} s; see {out}")
