"""Every cell of the Omniglot table as a configuration: plain data, with sources.

"as-published" gives each method the settings of its own code, undocumented ones too;
"equal" gives all methods one net, one split, one query size and the same time. Later
tables override earlier ones: COMMON, the protocol's own, its row, its column, its cell.
"as-it-works" has iMAML alone, in the settings that train here (docs/imaml.md).

Differences from the published protocols:
- A split depended on the order of files on its authors' disk: the sizes are theirs, the
  characters are not.
- The code of MAML and iMAML trains on 200 000 tasks drawn in advance; here every task
  is new. Rotations are quarter turns, drawn per class and task.
- Reptile's code passes the second moment of its inner Adam from task to task; here all
  tasks of a meta-step start from the same moment (methods/reptile.py). Its images are
  black on white, not inverted.
- iMAML has two rows "as published". "imaml" and "imaml-hf" follow its paper, which
  does not state the number of Newton steps: three here. "imaml-released" takes the
  steps of the program that the authors released (methods/released_imaml.py), which are
  others. That program also draws another split for the evaluation, so that three of
  four test characters were trained on: here no test character was. It lacks the
  Hessian-free row.
Sources: finn/maml main.py, maml.py, data_generator.py; openai/supervised-reptile
README, reptile.py; aravindr93/imaml_dev examples/README, learner_model.py; Rajeswaran
et al. 2019, table 2 and appendix; Nichol et al. 2018, tables 2 and 3.
"""

from typing import NamedTuple

from refmaml.cli import options
from refmaml.cli.imaml_presets import MORE_NEWTON, NEWTON, PAPER, RELEASED, WORKS
from refmaml.methods.table import BY_NAME

NAMES = ("maml", "fomaml", "reptile", "imaml-released", "imaml")
ROWS = {name: BY_NAME[name].title for name in NAMES}
ROWS["imaml-hf"] = f"{ROWS['imaml']}, Hessian-free"
COLUMNS = {
    "5w1s": "5-way 1-shot",
    "5w5s": "5-way 5-shot",
    "20w1s": "20-way 1-shot",
    "20w5s": "20-way 5-shot",
}
PROTOCOLS = {
    "as-published": "each method as it was published",
    "equal": "one net, one split, one budget",
    "as-it-works": "iMAML with a zero head and step control",
}


class Published(NamedTuple):
    """Accuracy and the half-width of its 95 % interval, in per cent.

    From table 2 of Rajeswaran et al. 2019.
    """

    accuracy: float
    interval: float


PUBLISHED = {
    "maml": {
        "5w1s": Published(98.7, 0.4),
        "5w5s": Published(99.9, 0.1),
        "20w1s": Published(95.8, 0.3),
        "20w5s": Published(98.9, 0.2),
    },
    "fomaml": {
        "5w1s": Published(98.3, 0.5),
        "5w5s": Published(99.2, 0.2),
        "20w1s": Published(89.4, 0.5),
        "20w5s": Published(97.9, 0.1),
    },
    "reptile": {
        "5w1s": Published(97.68, 0.04),
        "5w5s": Published(99.48, 0.06),
        "20w1s": Published(89.43, 0.14),
        "20w5s": Published(97.12, 0.32),
    },
    "imaml": {
        "5w1s": Published(99.16, 0.35),
        "5w5s": Published(99.67, 0.12),
        "20w1s": Published(94.46, 0.42),
        "20w5s": Published(98.69, 0.1),
    },
    "imaml-hf": {
        "5w1s": Published(99.50, 0.26),
        "5w5s": Published(99.74, 0.11),
        "20w1s": Published(96.18, 0.36),
        "20w5s": Published(99.14, 0.1),
    },
}

# The program that the authors released computed the row "imaml" of the paper.
PUBLISHED["imaml-released"] = PUBLISHED["imaml"]

# For all protocols. Of one-bit drawings Pillow makes the same images with every filter.
COMMON = {
    "data": "omniglot",
    "resample": "nearest",
    "split_by": "characters",
    "rotations": "per_task",
    "net": "conv4",
    "channels": 64,
    "downsample": "stride",
    "head_init": "random",
    "weight_gain": 1.0,
    "seed": 0,
    "dtype": "float32",
    "kernels": "auto",
    "chunk": 32,
    "schedule": "constant",
    "optimizer": "adam",
    "lr": 1e-3,
    "adam_eps": 1e-8,
    "eval_tasks": 600,
    "transductive": True,
}

SHAPES = {
    "5w1s": {"n_way": 5, "k_shot": 1, "k_query": 1},
    "5w5s": {"n_way": 5, "k_shot": 5, "k_query": 5},
    "20w1s": {"n_way": 20, "k_shot": 1, "k_query": 1},
    "20w5s": {"n_way": 20, "k_shot": 5, "k_query": 5},
}

# --metatrain_iterations=60000 --meta_batch_size=32 --update_batch_size=1
# --update_lr=0.4 --num_updates=1; first-order: --stop_grad=True. The inner step is
# alpha on the *sum* of cross-entropies over K. Batch-norm has no scale, and its shift
# does not adapt.
FINN = {
    "invert": True,
    "split_seed": 1,
    "train_classes": 1100,
    "validation_classes": 100,
    "padding": "same",
    "head": "mean",
    "bn_gamma": False,
    "bn_eps": 1e-3,
    "frozen": ["BatchNorm2d"],
    "loss_scale": "sum/K",
    "inner_lr": 0.4,
    "inner_steps": 1,
    "eval_steps": 3,
    "tasks": 32,
    "steps": 60000,
}
# --meta_batch_size=16 --num_classes=20 --update_lr=0.1 --num_updates=5
FINN_20_WAY = {"tasks": 16, "inner_lr": 0.1, "inner_steps": 5, "eval_steps": 5}

# --inner-batch 10 --inner-iters 5 --meta-step 1 --meta-batch 5 --meta-iters 100000
# --eval-batch 5 --eval-iters 50 --learning-rate 0.001 --meta-step-final 0 --train-shots
# 10; in training, a rotated character is another class; in testing, nothing is rotated.
NICHOL = {
    "method": "reptile",
    "invert": False,
    "split_seed": 0,
    "train_classes": 1200,
    "validation_classes": 0,
    "rotations": "as_classes",
    "eval_rotations": "none",
    "padding": "same",
    "head": "flatten",
    "bn_gamma": True,
    "bn_eps": 1e-3,
    "frozen": [],
    "loss_scale": "mean",
    "inner_optimizer": "adam",
    "inner_moment": "carried",
    "inner_lr": 1e-3,
    "inner_steps": 5,
    "inner_batch": 10,
    "train_shots": 10,
    "support_order": "shuffled",
    "k_query": 1,
    "tasks": 5,
    "optimizer": "sgd",
    "lr": 1.0,
    "schedule": "linear",
    "steps": 100000,
    "eval_steps": 50,
    "eval_batch": 5,
    "eval_tasks": 10000,
}
# --classes 20 --inner-batch 20 --inner-iters 10 --meta-iters 200000 --eval-batch 10
# --learning-rate 0.0005
NICHOL_20_WAY = {
    "inner_batch": 20,
    "inner_steps": 10,
    "inner_lr": 5e-4,
    "steps": 200000,
    "eval_batch": 10,
}

# What the columns set is theirs: SHAPES.
RAJESWARAN = {n: v for n, v in PAPER.items() if n not in SHAPES["5w1s"]}
RELEASED_PROGRAM = {n: v for n, v in RELEASED.items() if n not in SHAPES["5w1s"]}
TRAINS = {n: v for n, v in WORKS.items() if n not in ("n_way", "k_shot")}

# One net for all methods, nothing frozen; 20 minutes of meta-steps.
EQUAL = {
    "invert": True,
    "split_seed": 1,
    "train_classes": 1100,
    "validation_classes": 100,
    "padding": "same",
    "head": "flatten",
    "bn_gamma": True,
    "bn_eps": 1e-3,
    "frozen": [],
    "loss_scale": "mean",
    "tasks": 32,
    "steps": None,
    "minutes": 20.0,
}

IMPLICIT = ("method", "regularization", "cg_steps", "adam_eps")
ONE_STEP = {"inner_lr": 0.5, "inner_steps": 1, "eval_steps": 3}
OWN = {
    "maml": {"method": "maml", **ONE_STEP},
    "fomaml": {"method": "fomaml", **ONE_STEP},
    # As many steps as 20 minutes allow on two shared cores: its step size reaches 0 in
    # time.
    "reptile": {
        name: NICHOL[name]
        for name in (
            "method",
            "inner_optimizer",
            "inner_moment",
            "inner_lr",
            "inner_steps",
            "inner_batch",
            "train_shots",
            "support_order",
            "tasks",
            "optimizer",
            "lr",
            "schedule",
            "eval_steps",
            "eval_batch",
        )
    }
    | {"steps": 14000},
    # A third of its published step size, with which the inner loop would diverge on
    # this net (benchmarks/omniglot/README.md).
    "imaml": {name: RAJESWARAN[name] for name in (*IMPLICIT, "inner_solver", "inner_steps")}
    | {"inner_lr": 0.03},
    "imaml-hf": {name: RAJESWARAN[name] for name in IMPLICIT} | NEWTON,
}

# {protocol: {row: its own options}}; IN_20_WAY has those that differ in 20-way columns.
TABLES = {
    "as-published": {
        "maml": FINN | {"method": "maml"},
        "fomaml": FINN | {"method": "fomaml"},
        "reptile": NICHOL,
        "imaml-released": RELEASED_PROGRAM,
        "imaml": RAJESWARAN,
        "imaml-hf": RAJESWARAN | NEWTON,
    },
    "equal": {row: EQUAL | own for row, own in OWN.items()},
    "as-it-works": {"imaml": TRAINS, "imaml-hf": TRAINS | MORE_NEWTON},
}
FIVE_STEPS = {"inner_steps": 5, "eval_steps": 5}
IN_20_WAY = {
    "as-published": {
        "maml": FINN_20_WAY,
        "fomaml": FINN_20_WAY,
        "reptile": NICHOL_20_WAY,
        "imaml-released": {"inner_steps": 25},
        "imaml": {"inner_steps": 25},
        "imaml-hf": {},
    },
    "equal": {
        "maml": FIVE_STEPS,
        "fomaml": FIVE_STEPS,
        "reptile": NICHOL_20_WAY | {"steps": OWN["reptile"]["steps"]},
        "imaml": {"inner_steps": 25},
        "imaml-hf": {},
    },
    "as-it-works": {"imaml": {}, "imaml-hf": {}},
}


def rows_of(protocol):
    """{row: title} of the rows that a protocol has."""
    return {row: title for row, title in ROWS.items() if row in TABLES[protocol]}


def cells_of(protocols, columns, rows):
    """(protocol, column, row) of each chosen cell that its protocol has."""
    return [(p, c, r) for p in protocols for c in columns for r in rows if r in TABLES[p]]


def configuration(protocol, row, column):
    """All options of a cell, as `refmaml train --config` reads them."""
    wide = IN_20_WAY[protocol][row] if SHAPES[column]["n_way"] == 20 else {}
    given = COMMON | SHAPES[column] | TABLES[protocol][row] | wide
    return options.settle(given) | given  # `given` again: it may have empty lists on purpose
