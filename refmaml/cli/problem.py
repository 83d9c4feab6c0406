"""From a configuration to what it names: the tasks, the net, the method, the outer optimiser."""

from dataclasses import fields, replace

import numpy as np

from refmaml import models, tasks
from refmaml.cli.kernels import kernel_set
from refmaml.cli.options import flag
from refmaml.cli.presets import IMAGES
from refmaml.errors import ArgumentError, expect
from refmaml.execution import Sequential
from refmaml.layers import MSE, Context, CrossEntropy, FiLM, Flatten
from refmaml.methods.table import TABLE
from refmaml.training import OPTIMIZERS, Recipe, Schedule, evaluate_each_way
from refmaml.training.distributed import ALONE
from refmaml.training.evaluation import HELD_OUT_STEP

METHODS = {entry.name: entry.cls for entry in TABLE}

ON_CPU, ON_GPU = 8, 100  # held-out tasks at a time: to fill caches, and to fill a GPU

# The options that are fields of the method's dataclass, where it has them.
FIELDS = {
    "inner_lr": "inner_lr",
    "inner_steps": "inner_steps",
    "adapts": "adapts",
    "frozen": "frozen",
    "regularization": "regularization",
    "cg_steps": "cg_steps",
    "inner_solver": "solver",
    "inner_optimizer": "optimizer",
    "inner_batch": "inner_batch",
    "inner_moment": "moment",
    "recompute": "recompute",
}


def make_method(config, given=()):
    """The method; an option given that it has no use for raises ArgumentError."""
    config = {
        **dict.fromkeys(FIELDS),
        **config,
        **dict(given),
    }  # some of FIELDS belong to a call, not to a configuration
    cls = METHODS[config["method"]]
    for name in (name for name in given if name in FIELDS):
        users = [m for m, c in METHODS.items() if FIELDS[name] in names_of(c)]
        expect(
            config["method"] in users,
            flag(name),
            f"--method {' or '.join(users)} beside it",
            f"--method {config['method']}",
        )
    values = {
        field: config[name]
        for name, field in FIELDS.items()
        if field in names_of(cls) and config[name] is not None
    }
    return cls(**{field: tuple(v) if isinstance(v, list) else v for field, v in values.items()})


def names_of(cls):
    """The names of a dataclass's fields."""
    return {f.name for f in fields(cls)}


def at_evaluation(method, config, meta_size, net):
    """The method as it adapts to a held-out task: --eval-steps, --eval-batch, no mini-batch larger than the support set."""
    known, steps = names_of(type(method)), config["eval_steps"]
    support = config["k_shot"] * (config["n_way"] if config["data"] in IMAGES else 1)
    if steps is not None:
        expect(
            "inner_steps" in known,
            "--eval-steps",
            "a method that adapts",
            f"--method {config['method']}",
        )
        method = replace(method, inner_steps=steps)
        expect(
            len(method.init(net, np.zeros(net.num_params))) == meta_size,
            "--eval-steps",
            f"{config['inner_steps']}, as {config['method']} learned a rate for each step",
            steps,
        )
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


def make_net(config, threads=None):
    """The network, on its kernels, with its loss. threads: of the cpu kernels; None: as many as Numba was set to."""
    computes = kernel_set(config["kernels"], threads)
    images = config["data"] in IMAGES
    loss = CrossEntropy(config["loss_scale"]) if images else MSE(config["loss_scale"])
    if config["net"] == "conv4":
        expect(images, "--net", "mlp or two_layer_linear", f"conv4 with --data {config['data']}")
        net = models.conv4(
            config["n_way"],
            config["channels"],
            loss=loss,
            kernels=computes,
            **{
                name: config[name]
                for name in ("downsample", "padding", "head", "bn_gamma", "bn_eps", "weight_gain")
            },
        )
    elif config["net"] == "mlp":
        net = make_mlp(config, images, loss, computes)
    else:
        expect(
            config["data"] == "linear",
            "--net",
            "another one",
            f"two_layer_linear with --data {config['data']}",
        )
        net = models.two_layer_linear(
            config["dim"], config["rank"], MSE(config["loss_scale"], 0.5), computes
        )
    net = with_context(net, config) if config["method"] == "cavia" else net
    check_patterns(net, config)
    return net


def check_patterns(net, config):
    """Raise ArgumentError for a pattern that selects no parameter of the net."""
    for name in ("adapts", "frozen"):
        try:
            net.mask(config[name] or ())
        except ArgumentError as error:
            raise ArgumentError(f"{flag(name)}: {str(error).removeprefix('patterns: ')}") from None


def make_mlp(config, images, loss, computes):
    """A multi-layer perceptron from one input to one output, whatever they are."""
    before, inputs, outputs = (
        ([Flatten()], 28 * 28, config["n_way"])
        if images
        else ([], {"sinusoid": 1, "linear": config["dim"]}[config["data"]], 1)
    )
    net = models.mlp((inputs, *config["hidden"], outputs), loss=loss, kernels=computes)
    return Sequential([*before, *net.layers], loss, (1, 28, 28) if images else (inputs,), computes)


def with_context(net, config):
    """The net with CAVIA's context: it scales the channels of conv4's third block, or is more inputs."""
    layers, size = list(net.layers), config["context"]
    if config["net"] == "conv4":
        norms = [i for i, layer in enumerate(layers) if type(layer).__name__ == "BatchNorm2d"]
        layers.insert(norms[2] + 1, FiLM(config["channels"], size))
        return Sequential(layers, net.loss_function, net.input_shape, net.kernels)
    expect(config["net"] == "mlp", "--net", "conv4 or mlp with --method cavia", config["net"])
    first = next(i for i, layer in enumerate(layers) if type(layer).__name__ == "Linear")
    wider = replace(layers[first], in_features=layers[first].in_features + size)
    layers[first : first + 1] = [Context(size), wider]
    return Sequential(layers, net.loss_function, net.input_shape, net.kernels)


def make_tasks(config, split, data_root=None, download=False):
    """The task distribution. Raises ArgumentError and DataError."""
    rotations = (
        config["rotations"] if split == "train" else config["eval_rotations"] or config["rotations"]
    )
    if config["data"] == "glyphs":
        return tasks.Glyphs(split, rotations=rotations)
    if config["data"] == "omniglot":
        expect(data_root is not None, "--data-root", "the folder that holds Omniglot", "nothing")
        as_configured = {
            name: config[name]
            for name in (
                "split_by",
                "split_seed",
                "train_classes",
                "validation_classes",
                "resample",
                "invert",
            )
        }
        return tasks.Omniglot(
            data_root, split, rotations=rotations, download=download, **as_configured
        )
    if config["data"] == "sinusoid":
        return tasks.Sinusoids()
    return tasks.TwoLayerLinear(config["dim"], config["rank"])


def sampler(distribution, config, shots):
    """(tasks, step) -> Batch with `shots` support examples per class, the query as configured."""
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
    """The outer optimiser."""
    return OPTIMIZERS[config["optimizer"]](
        **({"eps": config["adam_eps"]} if config["optimizer"] == "adam" else {})
    )


def make_recipe(config, net, method, distribution, ranks=ALONE):
    """All that training needs but where to start."""
    mine, sample = (
        ranks.mine(config["tasks"]),
        sampler(distribution, config, config["train_shots"] or config["k_shot"]),
    )
    schedule = Schedule(config["lr"], config["schedule"], config["steps"])
    expect(
        config["inner_moment"] != "carried" or config["optimizer"] == "sgd",
        "--optimizer",
        "sgd beside --inner-moment carried",
        config["optimizer"],
    )
    return Recipe(
        net,
        method,
        make_optimizer(config),
        schedule,
        lambda step: sample(mine, step) if mine else None,
        config["chunk"],
        ranks,
    )


def make_judge(config, net, method, meta_size, split="test", ranks=ALONE, **where):
    """meta -> Evaluation on --eval-tasks held-out tasks; what cannot be judged is refused at once."""
    judge = make_judges(
        config, net, method, meta_size, (config["transductive"],), split, ranks, **where
    )
    return lambda meta: judge(meta)[0]


def make_judges(config, net, method, meta_size, ways, split="test", ranks=ALONE, **where):
    """meta -> an Evaluation for each value of "transductive" in `ways`."""
    sample = sampler(make_tasks(config, split, **where), config, config["k_shot"])
    adapts = at_evaluation(method, config, meta_size, net)
    return lambda meta: evaluate_each_way(
        net,
        adapts,
        meta,
        lambda tasks: sample(tasks, HELD_OUT_STEP),
        config["eval_tasks"],
        ways,
        config["chunk"] or (ON_GPU if net.kernels.on_device else ON_CPU),
        ranks=ranks,
    )


def check_fits(progress, fresh, place):
    """Raise ArgumentError unless a checkpoint's vectors are those of a fresh start of its configuration."""

    def vectors(p):
        state = ", ".join(sorted(p.state)) or "none"
        return f"{len(p.meta)} meta-parameters of {p.meta.dtype} and the optimiser state {state}"

    expect(vectors(progress) == vectors(fresh), place, vectors(fresh), vectors(progress))
