"""From a configuration to what it names: tasks, method, outer optimiser, recipe,
evaluation.
"""

from dataclasses import fields, replace

import numpy as np

from refmaml import kernels, tasks
from refmaml.cli.build_net import make_net, net_structure
from refmaml.cli.options import flag
from refmaml.cli.presets import DEFAULTS, IMAGES, INNER_LOOP
from refmaml.cli.sizes import check_memory, check_vector_sizes
from refmaml.errors import expect
from refmaml.methods.table import TABLE
from refmaml.training import Recipe, Schedule, evaluate_each_way
from refmaml.training.distributed import SINGLE_PROCESS
from refmaml.training.evaluation import HELD_OUT_STEP
from refmaml.update_rules import Adam, Clip
from refmaml.update_rules.from_text import rule_from_text

__all__ = [
    "METHODS",
    "FIELDS",
    "make_method",
    "make_net",
    "make_tasks",
    "make_optimizer",
    "make_recipe",
    "make_evaluator",
    "make_evaluators",
    "method_for_evaluation",
    "check_sizes",
    "check_vectors",
]

METHODS = {entry.name: entry.cls for entry in TABLE}
# {option: the field of a method's dataclass that it sets}, for methods that have the
# field.
FIELDS = {
    **{name: name for name in (*INNER_LOOP, "recompute")},
    **{
        name: option.field
        for entry in TABLE
        for name, option in entry.options.items()
        if option.field
    },
}
# Held-out tasks at a time: as many as fit a processor's caches, or fill a GPU.
CHUNK_ON_CPU, CHUNK_ON_GPU = 8, 100
# Options of Omniglot and of a folder of pictures, then those of one of them alone.
FILE_OPTIONS = ("split_seed", "train_classes", "validation_classes", "resample", "invert")
OMNIGLOT_OPTIONS = (*FILE_OPTIONS, "split_by")
FOLDER_OPTIONS = (*FILE_OPTIONS, "size", "color")


def make_method(config, given=()):
    """The method of a configuration.

    given  options of this call; one that the method has no field for raises
           ArgumentError
    """
    # Some of FIELDS belong to a call only and are missing in a configuration.
    config = {**dict.fromkeys(FIELDS), **config, **dict(given)}
    cls = METHODS[config["method"]]
    for name in (name for name in given if name in FIELDS):
        users = [m for m, c in METHODS.items() if FIELDS[name] in field_names(c)]
        expect(
            config["method"] in users,
            flag(name),
            f"--method {' or '.join(users)} beside it",
            f"--method {config['method']}",
        )
    values = {
        field: config[name]
        for name, field in FIELDS.items()
        if field in field_names(cls) and config[name] is not None
    }
    values = {field: tuple(v) if isinstance(v, list) else v for field, v in values.items()}
    if "rule" in values:
        values["rule"] = rule_from_text(values["rule"])
    return cls(**values)


def field_names(cls):
    """The names of a dataclass's fields."""
    return {f.name for f in fields(cls)}


def method_for_evaluation(method, config, meta_size, net):
    """The method that adapts to a held-out task: with --eval-steps and --eval-batch.

    Mini-batches larger than the support set become the whole support set. Raises
    ArgumentError for an option that the method has no use for.
    """
    known = field_names(type(method))
    support = config["k_shot"] * (config["n_way"] if config["data"] in IMAGES else 1)
    if config["eval_steps"] is not None:
        method = with_steps(method, config, meta_size, net)
    if config["eval_batch"] is not None:
        expect(
            "inner_batch" in known,
            "--eval-batch",
            "a method with mini-batches",
            f"--method {config['method']}",
        )
        method = replace(method, inner_batch=config["eval_batch"])
    if "inner_batch" in known and (method.inner_batch or 0) > support:
        method = replace(method, inner_batch=None)
    return method


def with_steps(method, config, meta_size, net):
    """The method with --eval-steps. Raises ArgumentError where it cannot take these."""
    expect(
        "inner_steps" in field_names(type(method)),
        "--eval-steps",
        "a method that adapts",
        f"--method {config['method']}",
    )
    several = isinstance(getattr(method, "inner_lr", None), tuple)
    expect(
        not several or config["eval_steps"] == method.inner_steps,
        "--eval-steps",
        f"{method.inner_steps}, as --inner-lr has one number for each inner step",
        config["eval_steps"],
    )
    method = replace(method, inner_steps=config["eval_steps"])
    expect(
        len(method.init(net, np.zeros(net.num_params))) == meta_size,
        "--eval-steps",
        f"{config['inner_steps']}, as {config['method']} learned a rate for each step",
        config["eval_steps"],
    )
    return method


def make_tasks(config, split, data_root=None, download=False):
    """The task distribution. Raises ArgumentError and DataError."""
    rotations = config["rotations"]
    if split != "train":
        rotations = config["eval_rotations"] or rotations
    if config["data"] == "glyphs":
        return tasks.Glyphs(split, rotations=rotations)
    if config["data"] == "omniglot":
        expect(data_root is not None, "--data-root", "the folder that holds Omniglot", "nothing")
        settings = {name: config[name] for name in OMNIGLOT_OPTIONS}
        return tasks.Omniglot(data_root, split, rotations=rotations, download=download, **settings)
    if config["data"] == "folder":
        expect(data_root is not None, "--data-root", "the folder of the pictures", "nothing")
        settings = {name: config[name] for name in FOLDER_OPTIONS}
        return tasks.ImageFolder(data_root, split, rotations=rotations, **settings)
    if config["data"] == "completion":
        fewest = config["fewest_shots"] if split == "train" else None
        return tasks.GlyphCompletion(split, fewest=fewest, frequencies=config["frequencies"])
    if config["data"] == "sinusoid":
        return tasks.Sinusoids()
    return tasks.TwoLayerLinear(config["dim"], config["rank"])


def sampler(distribution, config, shots):
    """(tasks, step) -> Batch with `shots` support examples per class."""
    ways = (
        {name: config[name] for name in ("n_way", "support_order")}
        if config["data"] in IMAGES
        else {}
    )

    def sample(tasks, step):
        return distribution.sample(
            tasks,
            k_shot=shots,
            k_query=config["k_query"],
            seed=config["seed"],
            step=step,
            dtype=np.dtype(config["dtype"]),
            **ways,
        )

    return sample


def make_optimizer(config):
    """The outer optimiser. Raises ArgumentError for two values of Adam's epsilon."""
    rule, eps = rule_from_text(config["optimizer"], "--optimizer"), config["adam_eps"]
    return rule if eps == DEFAULTS["adam_eps"] else with_epsilon(rule, eps)


def with_epsilon(rule, eps):
    """The rule with the epsilon of --adam-eps in its Adam; others are unchanged."""
    if isinstance(rule, Clip):
        return replace(rule, rule=with_epsilon(rule.rule, eps))
    if not isinstance(rule, Adam):
        return rule
    free = rule.eps == type(rule).eps
    expect(free, "--adam-eps", "no eps in --optimizer beside it", f"eps={rule.eps}")
    return replace(rule, eps=eps)


def make_recipe(config, net, method, distribution, ranks=SINGLE_PROCESS):
    """The Recipe of training."""
    my_tasks = ranks.my_tasks(config["tasks"])
    sample = sampler(distribution, config, config["train_shots"] or config["k_shot"])
    schedule = Schedule(config["lr"], config["schedule"], config["steps"])
    optimizer = make_optimizer(config)
    expect(
        config["inner_moment"] != "carried" or optimizer.plain,
        "--optimizer",
        "sgd beside --inner-moment carried",
        config["optimizer"],
    )
    return Recipe(
        net,
        method,
        optimizer,
        schedule,
        lambda step: sample(my_tasks, step) if my_tasks else None,
        config["chunk"],
        ranks,
    )


def make_evaluator(
    config, net, method, meta_size, split="test", ranks=SINGLE_PROCESS, **data_options
):
    """A function meta -> Evaluation on --eval-tasks held-out tasks.

    Raises ArgumentError at once for what cannot be evaluated.
    """
    ways = (config["transductive"],)
    evaluator = make_evaluators(config, net, method, meta_size, ways, split, ranks, **data_options)
    return lambda meta: evaluator(meta)[0]


def make_evaluators(
    config, net, method, meta_size, ways, split="test", ranks=SINGLE_PROCESS, **data_options
):
    """A function meta -> [an Evaluation for each value of `transductive` in `ways`]."""
    sample = sampler(make_tasks(config, split, **data_options), config, config["k_shot"])
    method = method_for_evaluation(method, config, meta_size, net)
    chunk = config["chunk"] or (CHUNK_ON_GPU if net.kernels.on_device else CHUNK_ON_CPU)
    return lambda meta: evaluate_each_way(
        net,
        method,
        meta,
        lambda tasks: sample(tasks, HELD_OUT_STEP),
        config["eval_tasks"],
        ways,
        chunk,
        ranks=ranks,
    )


def check_sizes(config, tasks, now=None, path=None):
    """Raise ArgumentError where the sizes of a configuration cannot be right.

    tasks      how many are sampled at once
    now, path  the Progress of a checkpoint, and the file, whose sizes must be the same
    Nothing larger than the checkpoint is allocated for it.
    """
    net = net_structure(config, kernels.reference())
    if now is not None:
        check_vector_sizes(make_method(config), net, now, path)
    check_memory(config, net, tasks)


def check_vectors(progress, fresh, path):
    """Raise ArgumentError unless a checkpoint's vectors are like those of a fresh
    start.
    """

    def vectors(p):
        state = ", ".join(sorted(p.state)) or "none"
        return f"{len(p.meta)} meta-parameters of {p.meta.dtype} and the optimiser state {state}"

    expect(vectors(progress) == vectors(fresh), path, vectors(fresh), vectors(progress))
