"""All options of train, evaluate and the other commands: kinds and help texts.

Options that belong to one method come from the methods' table.
"""

from refmaml import models
from refmaml.cli import presets
from refmaml.cli.kernels import NAMES
from refmaml.cli.option_kinds import (
    choice,
    count,
    count_or_share,
    from_table,
    named_object,
    not_negative,
    numbers,
    numbers_or_object,
    png_path,
    positive,
    several,
    step_sizes,
    switch,
    text,
    update_rule,
)
from refmaml.methods.table import TABLE

# The most inner steps. A file with a larger number is refused before anything is
# allocated for each step.
MAX_STEPS = 10**6

METHOD_OPTIONS = {
    name: (from_table(option.kind), option.help)
    for entry in TABLE
    for name, option in entry.options.items()
}

# What a checkpoint stores, in groups as --help shows them: {group: {option: (kind,
# help)}}.
SAVED = {
    "tasks": {
        "data": (choice(tuple(presets.BY_DATA)), "the source of tasks"),
        "n_way": (count(2), "classes in a task"),
        "k_shot": (count(1), "support examples per class"),
        "k_query": (count(1), "query examples per class"),
        "train_shots": (count(1), "support examples per class in training (default: --k-shot)"),
        "fewest_shots": (
            count(1),
            "completion: a training step's number of support pixels is drawn from this one to "
            "--k-shot",
        ),
        "frequencies": (
            count(0, 16),
            "completion: sines and cosines of a pixel's place, beside it (0: its place alone)",
        ),
        "support_order": (
            choice(("by_class", "shuffled")),
            "the order of support examples, for mini-batches (Reptile: shuffled)",
        ),
        "rotations": (choice(("none", "per_task", "as_classes")), "quarter turns of the images"),
        "eval_rotations": (
            choice(("none", "per_task", "as_classes")),
            "those of held-out tasks (default: --rotations)",
        ),
        "resample": (
            choice(("lanczos", "nearest")),
            "Omniglot, folder: how pictures are reduced to fewer pixels",
        ),
        "invert": (switch(), "Omniglot, folder: inputs are 1 - value (Omniglot: ink is 1 on 0)"),
        "size": (count(1), "folder: pixels along an edge of the inputs"),
        "color": (switch(), "folder: inputs have three colours; without it they are grey"),
        "split_by": (
            choice(("characters", "alphabets")),
            "Omniglot: the unit of the split into training and test",
        ),
        "split_seed": (count(0, 2**64 - 1), "Omniglot, folder: the seed of the split"),
        "train_classes": (
            count_or_share(1),
            "Omniglot, folder: how many classes to train on (folder: or which fraction)",
        ),
        "validation_classes": (
            count_or_share(0),
            "Omniglot, folder: how many to validate on; the others are held out",
        ),
        "dim": (count(1), "linear: the length of x"),
        "rank": (count(1), "linear: the dimension of the tasks' common subspace"),
    },
    "method": {
        "method": (
            choice(tuple(presets.BY_METHOD)),
            f"the meta-learning method (default {presets.DEFAULTS['method']})",
        ),
        "inner_lr": (
            step_sizes(MAX_STEPS),
            "step size of the inner loop, or one for each step: 0.4,0.2,0.1",
        ),
        "inner_steps": (count(1, MAX_STEPS), "steps of the inner loop"),
        "rule": (
            update_rule(),
            'update rule of the inner loop: adam, "SGD(momentum=0.9)", "Clip(SGD(), norm=1.0)" '
            "(default: plain gradient descent)",
        ),
        "anchor": (not_negative(), "strength of a term (anchor/2) |phi - phi_0|^2 in its loss"),
        "inner_batch": (count(1), "examples in an inner mini-batch (default: all; Reptile: 10)"),
        "order_seed": (
            count(0, 2**64 - 1),
            "seed of the order in which mini-batches go through a support set (default 0)",
        ),
        "adapts": (
            several(text(), "names or patterns"),
            "which parameters adapt: names, *, layer classes, head, body",
        ),
        "frozen": (several(text(), "names or patterns"), "which of these do not adapt"),
        **METHOD_OPTIONS,
    },
    "net": {
        "net": (choice(tuple(presets.BY_NET)), "the network"),
        "channels": (count(1), "conv4: channels of each block"),
        "downsample": (choice(("stride", "max_pool")), "conv4: how a block halves its images"),
        "padding": (
            choice(("same", "torch")),
            'conv4, strided: TensorFlow\'s "same", or one row on each side',
        ),
        "head": (choice(("mean", "flatten")), "conv4: the inputs of the linear head"),
        "head_init": (choice(("random", "zero")), "conv4: how the weights of the head start"),
        "bn_gamma": (switch(), "conv4: batch-norm with a scale"),
        "bn_eps": (positive(), "conv4: batch-norm's epsilon"),
        "weight_gain": (positive(), "conv4: a factor on the Xavier start of the weights"),
        "norm": (choice(tuple(presets.BY_NORM)), "conv4: batch-, group- or layer-norm"),
        "hidden": (several(count(1), "integers >= 1"), "mlp: sizes of the hidden layers"),
        "mlp_init": (
            choice(tuple(models.MLP_STARTS)),
            "mlp: how its weights start, from N(0, 0.01^2) or as Xavier's",
        ),
        "width": (count(1), "resnet12: channels of the first block; each next has twice as many"),
        "loss_scale": (
            choice(("mean", "sum", "sum/K")),
            "the factor of the loss's sum: 1/N, 1 or 1/K",
        ),
        "likelihood": (
            switch(),
            "regressions: the outputs are a mean and a spread, the loss is -log of a Gaussian",
        ),
        "kernels": (choice(NAMES), "the kernel set that computes the layers"),
        "dtype": (choice(("float32", "float64")), "precision"),
    },
    "policies": {
        "estimator": (
            choice(("naive", "lvc", "dice")),
            "navigation: whose second derivative is in the meta-gradient",
        ),
        "trajectories": (count(1), "navigation: trajectories in a batch of a task"),
        "horizon": (count(1), "navigation: the most steps of a trajectory"),
        "discount": (positive(), "navigation: the discount of returns, at most 1"),
        "max_kl": (
            positive(),
            "navigation: the largest KL divergence of the adapted policies in a meta-step",
        ),
    },
    "training": {
        "tasks": (count(1), "tasks in a meta-step"),
        "steps": (
            count(1),
            f"meta-steps in all (default {presets.STEPS}, or no limit with --minutes)",
        ),
        "minutes": (positive(), "stop when meta-steps have taken this long in all"),
        "optimizer": (
            update_rule(),
            'the outer optimiser, an update rule: adam, sgd, "AdamW(weight_decay=0.01)"',
        ),
        "lr": (positive(), "its learning rate"),
        "adam_eps": (positive(), "the outer Adam's epsilon"),
        "schedule": (
            choice(("constant", "linear", "cosine")),
            "of the learning rate; linear and cosine: to 0",
        ),
        "seed": (count(0, 2**64 - 1), "of the initial parameters and of all tasks"),
        "chunk": (
            count(1),
            "tasks in memory at once (default: as many as fit; held-out tasks 8, on a GPU 100)",
        ),
    },
    "evaluation": {
        "eval_tasks": (count(2), "held-out tasks to measure on"),
        "eval_steps": (count(1, MAX_STEPS), "their inner steps (default: --inner-steps)"),
        "eval_batch": (count(1), "their examples in an inner mini-batch (default: --inner-batch)"),
        "transductive": (
            switch(),
            "batch-norm takes the statistics of all query examples of a task together",
        ),
    },
}

# Options of one call, which a checkpoint does not store.
CALL_OPTIONS = {
    "data_root": (
        text(),
        "the folder of Omniglot's archives or images; folder: that with a folder of pictures "
        "for each class",
    ),
    "download": (switch(), "Omniglot: download missing archives"),
    "split": (choice(("train", "validation", "test")), "which classes to draw from (default test)"),
    "preset": (choice(tuple(presets.PRESETS)), "a published protocol; other options override it"),
    "config": (text(), "the config.json of another run to repeat; other options override it"),
    "out": (text(), "the folder to write to (default: a new one under runs/)"),
    "save_every": (positive(), "seconds between checkpoints (default 60)"),
    "plot": (png_path(), "redraw the curve every few seconds (default: curve.png in --out)"),
    "tensorboard": (text(), "write event files for TensorBoard to this folder"),
    "recompute": (
        switch(),
        "recompute inner steps instead of storing activations: same bits, less memory",
    ),
    "threads": (
        count(1),
        "of the cpu kernels (default: one for each core; under mpiexec, a rank's share of them)",
    ),
    "json": (text(), "also write the result to this file"),
    "markdown": (text(), "also write the report to this file, as markdown"),
    "junit": (text(), "also write the report to this file, as JUnit XML"),
    "framework": (
        choice(("numpy", "torch", "jax", "cupy")),
        "the library of the function's arrays (default numpy)",
    ),
    "probes": (several(text(), "names"), "some of quadratic, two-layer, mlp, conv (default: all)"),
    "layout": (several(text(), "NAME=AXES"), 'layouts other than torch\'s: "*.weight=HWIO" x=NHWC'),
    "precision": (choice(("float64", "float32")), "only this one (default: float64, then float32)"),
    "tol": (positive(), "the largest relative error of a tensor (default: what rounding allows)"),
    "seconds": (positive(), "how long to search for the mistake's name (default 30)"),
    "repeats": (
        count(0),
        "how often the call on the first case is repeated, to find noise, carried state and "
        "growing memory (default 6)",
    ),
    "own_net": (named_object(), "a net of refmaml's own that FUNCTION(params, batch) implements"),
    "loss": (named_object(), "loss(params, x, y) of one task; loss(outputs, y) beside --forward"),
    "params": (named_object(), "its parameters: a dict, a pytree, an nn.Module, or a function"),
    "batch": (named_object(), "the tasks: four sets or a list of tasks, or a function"),
    "forward": (named_object(), "forward(params, x) -> outputs; an nn.Module needs none"),
    "gradient": (named_object(), "NumPy: gradient(params, x, y) of the loss"),
    "not_meta_learned": (
        several(text(), "names or patterns"),
        "parameters that are not meta-learned: their gradient is 0, None or missing",
    ),
    "task_weights": (
        numbers_or_object(),
        "w_t in M = (1/T) sum_t w_t M_t: a number for each task, or a function of the number of "
        "tasks T -> T numbers, which fits every case (default: 1 each)",
    ),
    "learned_through": (
        several(text(), "NAME=FUNCTION"),
        "inner_lr=softplus: a learned step size is softplus(raw), and the gradient is that of "
        "raw; exp, softplus, sigmoid, square, or a function: step size -> f'(raw)",
    ),
    "step_factors": (
        numbers(),
        "the function's own factors on a single --inner-lr, one for each inner step: 1,0.75,0.25",
    ),
    "mini_batches": (
        named_object(),
        "a function (k, number of examples) -> the places of the support examples that inner "
        "step k sees; --inner-batch N is N examples in each step",
    ),
}

KINDS = {name: entry for group in SAVED.values() for name, entry in group.items()} | CALL_OPTIONS
