"""`refmaml evaluate CHECKPOINT`: how well what was trained adapts to tasks it never saw."""

from dataclasses import replace

from refmaml.cli import mpi, options
from refmaml.errors import expect

# What may differ from training. The method is among it: any method can adapt what another has trained.
ANEW = (
    "data",
    "k_shot",
    "k_query",
    "support_order",
    "rotations",
    "eval_rotations",
    "resample",
    "invert",
    "split_by",
    "split_seed",
    "train_classes",
    "validation_classes",
    "loss_scale",
    "kernels",
    "seed",
    "chunk",
    "eval_steps",
    "eval_batch",
    "transductive",
    *(name for name in options.SAVED["method"] if name not in ("context", "inner_moment")),
)


def add(subparsers):
    """Register the command."""
    p = subparsers.add_parser(
        "evaluate",
        help="measure a trained net on held-out tasks",
        description="The accuracy (or loss) after adapting to held-out tasks, with its "
        "95 % confidence interval over tasks.",
    )
    p.add_argument("checkpoint", help="what refmaml train left: a checkpoint.npz")
    p.add_argument("--tasks", default="600", help="held-out tasks (default 600)", metavar="N")
    options.add(p, ("split", "data_root", "download", "threads", "json"))
    options.add(p.add_argument_group("instead of what the checkpoint was trained with"), ANEW)
    p.set_defaults(func=run)


def run(arguments):
    """Load, adapt, judge, print."""
    from refmaml.cli import report
    from refmaml.training import files

    ranks = arguments.ranks
    with ranks.together():
        given = options.typed(arguments)
    given["eval_tasks"] = given.pop("tasks")
    config, now, judge = prepared(ranks, arguments.checkpoint, given)
    writes = ranks.rank == 0 and "json" in given
    with ranks.together():
        if writes:
            files.require_writable(given["json"])
    result = judge(now.meta)
    print(
        f"{config['method']} on {config['data']}: {result} over {len(result.values)} held-out tasks"
    )
    if writes:
        about = {"split": given.get("split", "test"), "steps": now.step, "configuration": config}
        files.write_json(given["json"], report.record(result) | about | report.circumstances())


def prepared(ranks, path, given):
    """(configuration, Progress, what turns the Progress's meta-parameters into an Evaluation)."""
    from refmaml.cli import problem
    from refmaml.training import checkpoint

    now, saved = ranks.from_first(lambda: checkpoint.load(path))
    with ranks.together():
        saved = options.reread(saved)
        config = reconfigured(saved, given)
        options.refuse_strays(given, config)
    threads = mpi.share_of_machine(ranks, config["kernels"], given.get("threads"))
    with ranks.together(), ranks.first_before_others():
        net = problem.make_net(
            config | {"method": saved["method"]}, threads
        )  # which decides whether it has a context
        trained = problem.make_method(saved)
        fresh = problem.make_recipe(saved, net, trained, None).start(net.init(0, saved["dtype"]))
        problem.check_fits(now, fresh, path)
        method, meta = problem.make_method(config, given), now.meta
        if config["method"] != saved["method"]:
            expect(
                config["method"] != "cavia",
                "--method",
                "one that needs no context in the net",
                "cavia",
            )
            meta = method.init(
                net, meta[: net.num_params]
            )  # all methods' meta-parameters begin with the net's
        where = {name: given[name] for name in ("split", "data_root", "download") if name in given}
        judge = problem.make_judge(config, net, method, len(meta), ranks=ranks, **where)
    return config, replace(now, meta=meta), judge


def reconfigured(saved, given):
    """The checkpoint's configuration with what is given instead; another method brings its own defaults."""
    config = dict(saved)
    if given.get("method", saved["method"]) != saved["method"]:
        fresh = options.settle({"data": saved["data"], "net": saved["net"]} | given)
        config |= {
            name: fresh[name]
            for name in ("loss_scale", "support_order", *options.SAVED["method"])
            if name in ANEW
        }
    return config | {name: value for name, value in given.items() if name in config}
