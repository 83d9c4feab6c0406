"""`refmaml evaluate CHECKPOINT`: how well what was trained adapts to held-out tasks, with a 95 % interval over tasks."""
from refmaml.cli import options
from refmaml.cli.presets import IMAGES
from refmaml.errors import expect

# What may differ from training; the options of the method in full, so that any method can adapt what another has trained.
ANEW = ("data", "k_shot", "k_query", "rotations", "resample", "invert", "split_by", *options.SAVED["method"], "kernels",
        "seed", "chunk", "eval_steps")


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser("evaluate", help="measure a trained net on held-out tasks", description=__doc__)
    p.add_argument("checkpoint", help="what refmaml train left: a checkpoint.npz")
    p.add_argument("--tasks", dest="eval_tasks", default="600", help="held-out tasks (default 600)", metavar="N")
    options.add(p, ("split", "data_root", "download", "json"))
    options.add(p.add_argument_group("instead of what the checkpoint was trained with"), ANEW)
    p.set_defaults(func=run)


def run(arguments):
    """Load, adapt, judge, print."""
    from refmaml.cli import problem, report
    from refmaml.training import checkpoint
    from refmaml.training.files import write_json
    given = options.typed(arguments)
    now, saved = checkpoint.load(arguments.checkpoint)
    saved = options.reread(saved)
    config = reconfigured(saved, given)
    options.refuse_strays(given, config)
    net, trained = problem.make_net(config), problem.make_method(saved)
    size = len(trained.init(net, net.init(0)))
    expect(len(now.meta) == size, arguments.checkpoint, f"the {size} meta-parameters its configuration asks for",
           f"{len(now.meta)}")
    method, meta = problem.make_method(config, given), now.meta
    if config["method"] != saved["method"]:
        meta = method.init(net, meta[:net.num_params])          # every method's meta-parameters begin with the net's
    split = given.get("split", problem.test_split(config))
    held_out = problem.make_tasks(config, split, given.get("data_root"), given.get("download", False))
    result = problem.evaluate_on(held_out, net, method, meta, config)
    if "json" in given:
        write_json(given["json"], {**report.record(result), "steps": now.step, "split": split if config["data"] in IMAGES else None,
                                   "configuration": config, "versions": report.versions(), "machine": report.machine()})
    print(f"{config['method']} on {config['data']}: {result} over {len(result.values)} held-out tasks")


def reconfigured(saved, given):
    """The checkpoint's configuration with what is given instead; another method comes with its own defaults."""
    config = dict(saved)
    if given.get("method", saved["method"]) != saved["method"]:
        fresh = options.settle({"data": saved["data"], "net": saved["net"]} | given)
        config |= {name: fresh[name] for name in (*options.SAVED["method"], "loss_scale")}
    return config | {name: value for name, value in given.items() if name in config}
