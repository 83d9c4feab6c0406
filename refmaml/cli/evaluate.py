"""`refmaml evaluate CHECKPOINT`: how well a trained net adapts to held-out tasks."""

from dataclasses import replace

from refmaml.cli import mpi, options, presets
from refmaml.cli.outputs import check_outputs
from refmaml.errors import expect
from refmaml.methods.table import BY_NAME

# Options that may differ from training. Any method can adapt what another has trained;
# the options excluded here decide the size of the meta-parameters.
CHANGEABLE = (
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
    p.add_argument("checkpoint", help="a checkpoint.npz of refmaml train")
    p.add_argument("--tasks", default="600", help="held-out tasks (default 600)", metavar="N")
    options.add(p, ("split", "data_root", "download", "threads", "json"))
    options.add(p.add_argument_group("instead of the checkpoint's own configuration"), CHANGEABLE)
    p.set_defaults(func=run)


def run(arguments):
    """Load the checkpoint, adapt, measure, print, write."""
    from refmaml.cli import report
    from refmaml.training import files

    ranks = arguments.ranks
    with ranks.shared_errors():
        given = options.typed(arguments)
    writes = ranks.rank == 0 and "json" in given
    with ranks.shared_errors():
        if writes:
            check_outputs({"--json": given["json"]}, {"the checkpoint": arguments.checkpoint})
    given["eval_tasks"] = given.pop("tasks")
    config, now, evaluator = prepare(ranks, arguments.checkpoint, given)
    result = evaluator(now.meta)
    print(
        f"{config['method']} on {config['data']}: {result} over {len(result.values)} held-out tasks"
    )
    if writes:
        about = {"split": given.get("split", "test"), "steps": now.step, "configuration": config}
        files.write_json(given["json"], report.record(result) | about | report.circumstances())


def prepare(ranks, path, given):
    """(configuration, Progress, a function meta-parameters -> Evaluation)."""
    from refmaml.cli import problem
    from refmaml.training import checkpoint

    now, saved = ranks.from_rank_0(lambda: checkpoint.load(path))
    with ranks.shared_errors():
        saved = options.reread(saved)
        config = reconfigured(saved, given)
        options.refuse_unused(given, config)
        tasks = min(config["eval_tasks"], config["chunk"] or problem.CHUNK_ON_CPU)
        problem.check_sizes(saved, 0, now, path)  # its data may differ from evaluation's
        problem.check_sizes(config | {"method": saved["method"]}, tasks)
    threads = mpi.assign_resources(ranks, config["kernels"], given.get("threads"))
    with ranks.shared_errors(), ranks.local_rank_0_first():
        # The saved method decides whether the net has a context.
        net = problem.make_net(config | {"method": saved["method"]}, threads)
        trained = problem.make_method(saved)
        start = net.init(0, saved["dtype"])
        problem.check_vectors(
            now, problem.make_recipe(saved, net, trained, None).start(start), path
        )
        method, meta = problem.make_method(config, given), now.meta
        if config["method"] != saved["method"]:
            meta = converted(net, method, meta, config["method"])
        place = {name: given[name] for name in ("split", "data_root", "download") if name in given}
        evaluator = problem.make_evaluator(config, net, method, len(meta), ranks=ranks, **place)
    return config, replace(now, meta=meta), evaluator


def converted(net, method, meta, name):
    """The meta-parameters of `method`, begun from the net's parameters in those of
    another.
    """
    expect(not BY_NAME[name].context, "--method", "one that needs no context in the net", name)
    return method.init(net, meta[: net.num_params])  # all methods' begin with the net's


def reconfigured(saved, given):
    """The checkpoint's configuration, changed by the options given.

    Another method brings its own defaults, and other data its own split.
    """
    config = dict(saved)
    if (data := given.get("data", saved["data"])) != saved["data"]:
        fresh = presets.DEFAULTS | presets.BY_DATA[data]
        config |= {name: fresh[name] for name in ("train_classes", "validation_classes", "invert")}
    if given.get("method", saved["method"]) != saved["method"]:
        fresh = options.settle({"data": saved["data"], "net": saved["net"]} | given)
        config |= {
            name: fresh[name]
            for name in ("loss_scale", "support_order", *options.SAVED["method"])
            if name in CHANGEABLE
        }
    return config | {name: value for name, value in given.items() if name in config}
