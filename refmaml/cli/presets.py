"""Default values of options: plain data.

Later tables override earlier ones: DEFAULTS, BY_DATA, BY_NET, BY_NORM (conv4 only),
BY_METHOD, PRESETS, and then the command line. BY_METHOD is part of the methods' table;
imaml_presets.py has more of PRESETS.
"""

from refmaml.cli.imaml_presets import PRESETS as OF_IMAML
from refmaml.methods.table import TABLE

# Options that are fields of every method with an inner loop.
INNER_LOOP = (
    "inner_lr",
    "inner_steps",
    "rule",
    "anchor",
    "inner_batch",
    "order_seed",
    "adapts",
    "frozen",
)
IMAGES = ("glyphs", "omniglot", "folder")
POLICIES = ("navigation",)  # tasks of reinforcement learning

DEFAULTS = {
    "data": "glyphs",
    "rotations": "per_task",
    "eval_rotations": None,
    "resample": "lanczos",
    "invert": True,
    "split_by": "characters",
    "split_seed": 1,
    "train_classes": 1100,
    "validation_classes": 100,
    "size": 28,
    "color": False,
    "n_way": 5,
    "k_shot": 1,
    "k_query": 5,
    "train_shots": None,
    "fewest_shots": None,
    "frequencies": 0,
    "support_order": "by_class",
    "dim": 20,
    "rank": 3,
    "method": "maml",
    "inner_lr": 0.4,
    "inner_steps": 1,
    "rule": None,
    "anchor": None,
    "inner_batch": None,
    "order_seed": None,
    "adapts": None,
    "frozen": None,
    "regularization": 2.0,
    "cg_steps": 5,
    "inner_solver": None,
    "inner_optimizer": None,
    "inner_moment": None,
    "net": "conv4",
    "channels": 64,
    "downsample": "stride",
    "padding": "same",
    "head": "mean",
    "head_init": "random",
    "bn_gamma": False,
    "bn_eps": 1e-3,
    "weight_gain": 1.0,
    "norm": "batch",
    "hidden": [40, 40],
    "mlp_init": "small",
    "width": 64,
    "context": 5,
    "loss_scale": "sum/K",
    "estimator": None,
    "trajectories": None,
    "horizon": None,
    "discount": None,
    "max_kl": None,
    "likelihood": False,
    "tasks": 32,
    "steps": None,
    "minutes": None,
    "optimizer": "adam",
    "lr": 1e-3,
    "adam_eps": 1e-8,
    "schedule": "constant",
    "seed": 0,
    "dtype": "float32",
    "kernels": "auto",
    "chunk": None,
    "eval_tasks": 600,
    "eval_steps": None,
    "eval_batch": None,
    "transductive": True,
}
# An option of one method that has no default above: the method's own default.
DEFAULTS |= {name: None for entry in TABLE for name in entry.options if name not in DEFAULTS}

# Where neither --steps nor --minutes is given.
STEPS = 500

BY_DATA = {
    "glyphs": {},
    "omniglot": {},
    # Pictures of things have an upright position, and some classes have few of them.
    "folder": {
        "train_classes": 0.6,
        "validation_classes": 0.2,
        "invert": False,
        "rotations": "none",
    },
    # Finn et al. 2017, section 5.1
    "sinusoid": {
        "net": "mlp",
        "k_shot": 10,
        "k_query": 10,
        "inner_lr": 0.01,
        "loss_scale": "mean",
        "tasks": 25,
    },
    "linear": {
        "net": "two_layer_linear",
        "k_shot": 20,
        "k_query": 20,
        "inner_lr": 0.1,
        "loss_scale": "mean",
        "lr": 1e-2,
    },
    # Garnelo et al. 2018, section 4.2: any number of pixels of a picture
    "completion": {
        "net": "mlp",
        "k_shot": 200,
        "k_query": 200,
        "fewest_shots": 10,
        "frequencies": 4,
        "inner_lr": 0.01,
        "loss_scale": "mean",
        "tasks": 8,
    },
    # Finn et al. 2017, section 5.3, and cbfinn/maml_rl
    "navigation": {
        "net": "mlp",
        "hidden": [100, 100],
        "inner_lr": 0.5,
        "tasks": 40,
        "lr": 1.0,  # only reptile reads it
        "steps": 100,
        "eval_tasks": 40,
        "eval_steps": 3,
        "estimator": "naive",
        "trajectories": 20,
        "horizon": 100,
        "discount": 0.99,
        "max_kl": 0.01,
    },
}

BY_NET = {
    "conv4": {"frozen": ["BatchNorm2d"], "context": 100},  # as in MAML's own code
    "mlp": {},
    "two_layer_linear": {},
    "resnet12": {},
}

# The parameters of conv4's norm do not adapt.
BY_NORM = {"batch": {}, "group": {"frozen": ["GroupNorm"]}, "layer": {"frozen": ["LayerNorm"]}}

BY_METHOD = {entry.name: entry.defaults for entry in TABLE}

PRESETS = {
    # finn/maml, main.py: --update_batch_size=1 --update_lr=0.4 --num_updates=1
    # --meta_batch_size=32; the paper tests with 3 steps
    "maml-omniglot-5w1s": {
        "data": "omniglot",
        "resample": "lanczos",
        "invert": True,
        "rotations": "per_task",
        "split_by": "characters",
        "n_way": 5,
        "k_shot": 1,
        "k_query": 1,
        "method": "maml",
        "inner_lr": 0.4,
        "inner_steps": 1,
        "frozen": ["BatchNorm2d"],
        "net": "conv4",
        "channels": 64,
        "downsample": "stride",
        "head": "mean",
        "bn_gamma": False,
        "loss_scale": "sum/K",
        "tasks": 32,
        "optimizer": "adam",
        "lr": 1e-3,
        "schedule": "constant",
        "eval_tasks": 600,
        "eval_steps": 3,
    }
} | OF_IMAML
