"""The options that train and evaluate share: how each is read, and which values hold where nobody says."""

from math import isfinite
from typing import Any, NamedTuple

from refmaml.cli import presets
from refmaml.cli.kernels import NAMES
from refmaml.errors import ArgumentError, expect


class Kind(NamedTuple):
    """How a value is read, from the command line's text or a checkpoint's JSON, and what it must be.

    read   value -> value; raises ValueError or TypeError for anything else
    nargs  as argparse's; 0 marks a switch --name / --no-name
    """

    read: Any
    wanted: str
    nargs: Any = None


def accept(condition, value):
    if not condition:
        raise ValueError(value)
    return value


def count(least, most=2**31 - 1):
    def read(value):
        number = int(value) if isinstance(value, str) else value
        accept(type(number) is int and number >= least, number)
        if number > most:
            raise OverflowError(number)
        return number

    return Kind(read, f"an integer >= {least}")


def positive():
    def read(value):
        number = float(value) if isinstance(value, str) else value
        return accept(
            type(number) in (int, float) and isfinite(number) and number > 0, float(number)
        )

    return Kind(read, "a finite number > 0")


def choice(values):
    def read(value):
        return accept(isinstance(value, str) and value in values, value)

    return Kind(read, f"one of {', '.join(values)}")


def text():
    return Kind(lambda value: accept(isinstance(value, str) and value, value), "some text")


def picture():
    """The path of a PNG; nothing behind the option: None."""
    return Kind(
        lambda value: value if value is None else accept(value.endswith(".png") and value, value),
        "a path that ends in .png",
        "?",
    )


def several(kind, wanted):
    """A list of values of a kind."""

    def read(values):
        return [kind.read(value) for value in accept(isinstance(values, list), values)]

    return Kind(read, wanted, "*")


def switch():
    return Kind(lambda value: accept(type(value) is bool, value), "true or false", 0)


# Where an option means something: {option: (another option, the values of that one)}.
BELONGS = {
    **{
        name: ("data", presets.IMAGES)
        for name in ("n_way", "support_order", "rotations", "eval_rotations", "split")
    },
    **{
        name: ("data", ("omniglot",))
        for name in (
            "data_root",
            "download",
            "resample",
            "invert",
            "split_by",
            "split_seed",
            "train_classes",
            "validation_classes",
        )
    },
    **{name: ("data", ("linear",)) for name in ("dim", "rank")},
    **{
        name: ("net", ("conv4",))
        for name in (
            "channels",
            "downsample",
            "padding",
            "head",
            "bn_gamma",
            "bn_eps",
            "weight_gain",
        )
    },
    "threads": ("kernels", ("auto", "cpu")),
    "hidden": ("net", ("mlp",)),
    "context": ("method", ("cavia",)),
}

# What a checkpoint keeps, in groups as --help shows them: {group: {option: (kind, help)}}.
SAVED = {
    "tasks": {
        "data": (choice(tuple(presets.BY_DATA)), "where tasks come from"),
        "n_way": (count(2), "classes in a task"),
        "k_shot": (count(1), "support examples per class"),
        "k_query": (count(1), "query examples per class"),
        "train_shots": (
            count(1),
            "support examples per class while training, where not --k-shot (Reptile)",
        ),
        "support_order": (
            choice(("by_class", "shuffled")),
            "how its examples stand, for mini-batches (Reptile's: shuffled)",
        ),
        "rotations": (choice(("none", "per_task", "as_classes")), "quarter turns of the pictures"),
        "eval_rotations": (
            choice(("none", "per_task", "as_classes")),
            "those of held-out tasks, where not --rotations",
        ),
        "resample": (choice(("lanczos", "nearest")), "Omniglot: how 105 pixels become 28"),
        "invert": (switch(), "Omniglot: ink is 1 on 0"),
        "split_by": (
            choice(("characters", "alphabets")),
            "Omniglot: what is split into training and test",
        ),
        "split_seed": (
            count(0, 2**64 - 1),
            "Omniglot: shuffles the characters before they are split",
        ),
        "train_classes": (count(1), "Omniglot: how many characters to train on"),
        "validation_classes": (count(0), "Omniglot: how many to validate on; the rest is held out"),
        "dim": (count(1), "linear: the length of x"),
        "rank": (count(1), "linear: the dimension of what tasks share"),
    },
    "method": {
        "method": (choice(tuple(presets.BY_METHOD)), "the meta-learning method"),
        "inner_lr": (positive(), "step size of the inner loop"),
        "inner_steps": (count(1), "steps of the inner loop"),
        "adapts": (
            several(text(), "names or patterns"),
            "which parameters adapt: names, *, layer classes, head, body",
        ),
        "frozen": (several(text(), "names or patterns"), "which of those do not after all"),
        "regularization": (positive(), "iMAML: lambda"),
        "cg_steps": (count(1), "iMAML: steps of conjugate gradients"),
        "inner_solver": (choice(("gradient_descent", "newton_cg")), "iMAML: the inner solver"),
        "inner_optimizer": (choice(("sgd", "adam")), "Reptile: the inner optimiser"),
        "inner_batch": (count(1), "Reptile: examples in an inner mini-batch"),
        "inner_moment": (
            choice(("fresh", "carried")),
            "Reptile: where the inner Adam's second moment starts in a task",
        ),
        "context": (count(1), "CAVIA: numbers in a task's context"),
    },
    "net": {
        "net": (choice(tuple(presets.BY_NET)), "the network"),
        "channels": (count(1), "conv4: channels of each block"),
        "downsample": (choice(("stride", "max_pool")), "conv4: how a block halves its pictures"),
        "padding": (
            choice(("same", "torch")),
            'conv4, strided: TensorFlow\'s "same", or one row on every side',
        ),
        "head": (choice(("mean", "flatten")), "conv4: what the linear head sees"),
        "bn_gamma": (switch(), "conv4: batch-norm with a scale"),
        "bn_eps": (positive(), "conv4: batch-norm's epsilon"),
        "weight_gain": (positive(), "conv4: a factor on the Xavier start of the weights"),
        "hidden": (several(count(1), "integers >= 1"), "mlp: sizes of the hidden layers"),
        "loss_scale": (choice(("mean", "sum", "sum/K")), "what stands in front of the loss's sum"),
        "kernels": (choice(NAMES), "what computes the layers"),
        "dtype": (choice(("float32", "float64")), "precision"),
    },
    "training": {
        "tasks": (count(1), "tasks in a meta-step"),
        "steps": (
            count(1),
            f"meta-steps in all (default {presets.STEPS}, or no limit with --minutes)",
        ),
        "minutes": (positive(), "stop once meta-steps took this long in all"),
        "optimizer": (choice(("adam", "sgd")), "the outer optimiser"),
        "lr": (positive(), "its learning rate"),
        "adam_eps": (positive(), "Adam's epsilon"),
        "schedule": (
            choice(("constant", "linear", "cosine")),
            "of the learning rate; linear, cosine: to 0",
        ),
        "seed": (count(0, 2**64 - 1), "of the initial parameters and of all tasks"),
        "chunk": (
            count(1),
            "tasks in memory at once (default: as many as fit; held-out tasks 8, on a GPU 100)",
        ),
    },
    "evaluation": {
        "eval_tasks": (count(2), "held-out tasks the result is measured on"),
        "eval_steps": (count(1), "inner steps there, where not --inner-steps"),
        "eval_batch": (
            count(1),
            "Reptile: examples in an inner mini-batch there, where not --inner-batch or all",
        ),
        "transductive": (
            switch(),
            "query examples are seen together, batch-norm's statistics are theirs",
        ),
    },
}

# What belongs to one call, not to what was learned.
OF_A_CALL = {
    "data_root": (text(), "Omniglot: the folder of its archives or pictures"),
    "download": (switch(), "Omniglot: fetch what is missing there"),
    "split": (choice(("train", "validation", "test")), "which classes to draw from (default test)"),
    "preset": (choice(tuple(presets.PRESETS)), "a published protocol; other options override it"),
    "config": (
        text(),
        "the config.json of another run, for the same again; other options override it",
    ),
    "out": (text(), "the folder to write to (default: a new one under runs/)"),
    "save_every": (positive(), "seconds between checkpoints (default 60)"),
    "plot": (picture(), "draw the curve again every few seconds (default: curve.png in --out)"),
    "tensorboard": (text(), "write event files for TensorBoard to this folder"),
    "recompute": (
        switch(),
        "run inner steps again instead of storing their activations: same bits, less memory",
    ),
    "threads": (
        count(1),
        "of the cpu kernels (default: as many as there are cores; under mpiexec, each rank its share)",
    ),
    "json": (text(), "also write the result to this file"),
    "markdown": (text(), "also write the report to this file, as markdown"),
    "junit": (text(), "also write the report to this file, as JUnit XML"),
    "framework": (
        choice(("numpy", "torch", "jax", "cupy")),
        "what the function's arrays are (default numpy)",
    ),
    "probes": (several(text(), "names"), "some of quadratic, two-layer, mlp, conv (default all)"),
    "layout": (several(text(), "NAME=AXES"), 'where not torch\'s: "*.weight=HWIO" x=NHWC'),
    "precision": (choice(("float64", "float32")), "this one only (default float64, then float32)"),
    "tol": (positive(), "the largest relative error of a tensor (default: what rounding allows)"),
    "seconds": (positive(), "how long to look for a name (default 30)"),
}

KINDS = {name: entry for group in SAVED.values() for name, entry in group.items()} | OF_A_CALL


def flag(name):
    """The option as it is typed: "inner_lr" -> "--inner-lr"."""
    return "--" + name.replace("_", "-")


def add(parser, names):
    """Add options to an argparse parser or group. Only those typed appear in what it parses, as text."""
    import argparse

    for name in names:
        kind, description = KINDS[name]
        how = (
            {"action": argparse.BooleanOptionalAction}
            if kind.nargs == 0
            else {"nargs": kind.nargs, "metavar": metavar(kind)}
        )
        parser.add_argument(flag(name), default=argparse.SUPPRESS, help=description, **how)


def metavar(kind):
    """Choices as they are, otherwise the kind of value."""
    if kind.wanted.startswith("one of "):
        return "{" + kind.wanted.removeprefix("one of ").replace(", ", ",") + "}"
    return {
        "some text": "PATH",
        "a path that ends in .png": "PATH",
        "names or patterns": "PATTERN",
        "names": "NAME",
        "NAME=AXES": "NAME=AXES",
    }.get(kind.wanted, "N")


def read(name, value):
    """The value of an option, or ArgumentError naming it."""
    kind = KINDS[name][0]
    try:
        return kind.read(value)
    except (ValueError, TypeError):
        raise ArgumentError(f"{flag(name)}: expected {kind.wanted}, got {value!r}") from None
    except OverflowError:
        raise ArgumentError(f"{flag(name)}: expected a smaller number, got {value!r}") from None


def typed(arguments):
    """{option: value} for those on the command line. Raises ArgumentError."""
    return {name: read(name, value) for name, value in vars(arguments).items() if name in KINDS}


def settle(given):
    """The configuration, a value for everything in SAVED: the options given, a file that --config names, and the tables of presets.py.

    Raises ArgumentError and DataError for a file that is no configuration.
    """
    given = asked(given)
    data = given.get("data", presets.DEFAULTS["data"])
    net = given.get("net", presets.BY_DATA[data].get("net", presets.DEFAULTS["net"]))
    method = given.get("method", presets.DEFAULTS["method"])
    config = (
        presets.DEFAULTS
        | presets.BY_DATA[data]
        | presets.BY_NET[net]
        | presets.BY_METHOD[method]
        | {name: value for name, value in given.items() if name in presets.DEFAULTS}
    )
    return config if config["steps"] or config["minutes"] else config | {"steps": presets.STEPS}


def asked(given):
    """The options given, on top of a preset's and of a file's that --config names. Raises ArgumentError and DataError for such a file."""
    from refmaml.training.files import read_json

    of_file = (
        reread(read_json(given["config"], "the config.json of a run")) if "config" in given else {}
    )
    return presets.PRESETS.get(given.get("preset"), {}) | of_file | given


def means_something(name, config):
    """Whether an option plays a part under a configuration."""
    other, values = BELONGS.get(name, ("data", tuple(presets.BY_DATA)))
    return config[other] in values


def refuse_strays(given, config):
    """Raise ArgumentError for an option given where it means nothing."""
    for name in given:
        if not means_something(name, config):
            other, values = BELONGS[name]
            raise ArgumentError(
                f"{flag(name)}: expected {flag(other)} {' or '.join(values)} beside it, got {flag(other)} {config[other]}"
            )


def reread(config):
    """A configuration from a file, checked as if it had been typed; what it does not name is as by default. Raises ArgumentError."""
    names = set(presets.DEFAULTS)
    expect(
        isinstance(config, dict) and set(config) <= names,
        "configuration",
        f"some of the {len(names)} options of this version",
        f"others: {', '.join(sorted(set(config) - names))}"
        if isinstance(config, dict)
        else repr(config),
    )
    return presets.DEFAULTS | {
        name: None if value is None and presets.DEFAULTS[name] is None else read(name, value)
        for name, value in config.items()
    }
