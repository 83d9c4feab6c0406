"""Entries of the table of methods: heads that are solved, LLAMA, and neural processes.

These adapt by a solve, a posterior or an encoder, and not by gradient steps alone. See
table.py for what an entry says and who reads it.
"""

from refmaml.methods.alpaca import ALPaCA
from refmaml.methods.cnp import CNP
from refmaml.methods.llama import CURVATURES, LLAMA
from refmaml.methods.lrd2 import LRD2
from refmaml.methods.metaoptnet import MetaOptNet
from refmaml.methods.r2d2 import R2D2
from refmaml.methods.table_entry import (
    LAPLACE,
    NETS_WITH_A_BODY,
    PREDICTIVE,
    Entry,
    GoldenCase,
    Option,
)
from refmaml.methods.table_settings import (
    CONTEXT,
    HEAD_OPTIONS,
    HESSIAN,
    KRONECKER,
    MOMENTUM,
    RIDGE,
)

HEADS_AND_BAYES = (
    Entry(
        "r2d2",
        R2D2,
        "R2-D2",
        defaults={"loss_scale": "mean", "frozen": None},
        options=HEAD_OPTIONS,
        checked_with=(RIDGE, RIDGE | {"intercept": True}),
        golden=(GoldenCase("r2d2", NETS_WITH_A_BODY, RIDGE, schema=2),),
    ),
    Entry(
        "lrd2",
        LRD2,
        "LR-D2",
        defaults={"loss_scale": "mean", "frozen": None},
        options={
            "newton_steps": Option("newton_steps", "integer >= 1", "LR-D2: Newton steps"),
            "differentiate": Option(
                "differentiate",
                ("optimum", "iterations"),
                "LR-D2: its derivative, at the optimum or through the steps",
            ),
        },
        checked_with=(
            RIDGE,
            RIDGE | {"intercept": True},
            RIDGE | {"newton_steps": 3, "differentiate": "iterations"},
        ),
    ),
    Entry(
        "metaoptnet",
        MetaOptNet,
        "MetaOptNet",
        defaults={"loss_scale": "mean", "frozen": None},
        options={
            "svm_cost": Option("cost", "number > 0", "MetaOptNet: bound of the dual variables"),
            "solver_steps": Option("solver_steps", "integer >= 1", "MetaOptNet: iterations"),
        },
        checked_with=(RIDGE, RIDGE | {"intercept": True, "cost": 0.5}),
    ),
    Entry(
        "alpaca",
        ALPaCA,
        "ALPaCA",
        PREDICTIVE,
        defaults={"loss_scale": "mean", "frozen": None},
        options={
            "prior_precision": Option(
                "precision", "number > 0", "ALPaCA: the prior's at the start"
            ),
            "noise": Option("noise", "number > 0", "ALPaCA: the targets' variance at the start"),
        },
        checked_with=({"precision": 0.75, "noise": 0.25},),
    ),
    Entry(
        "llama",
        LLAMA,
        "LLAMA",
        LAPLACE,
        defaults={"loss_scale": "mean", "frozen": None},
        options={
            "laplace_weight": Option("weight", "number >= 0", "LLAMA: eta, before the term"),
            "laplace_precision": Option("precision", "number > 0", "LLAMA: tau, the prior's"),
            "curvature": Option("curvature", CURVATURES, "LLAMA: the Hessian's form"),
            "laplace_probes": Option("probes", "integer >= 1", "LLAMA: vectors of its probes"),
            "lanczos_steps": Option("lanczos_steps", "integer >= 1", "LLAMA: products for each"),
        },
        checked_with=(
            HESSIAN,
            HESSIAN | MOMENTUM,
            HESSIAN | {"adapts": ("head",)},
            KRONECKER,
            KRONECKER | MOMENTUM,
        ),
    ),
    Entry(
        "cnp",
        CNP,
        "CNP",
        defaults={
            "hidden": [64, 64],
            "mlp_init": "xavier",
            "context": 64,
            "loss_scale": "mean",
            "frozen": None,
            "likelihood": True,
        },
        options={
            "context": CONTEXT,
            "encoder": Option(
                "encoder", "integers >= 1", "CNP: sizes of the encoder's hidden layers"
            ),
            "encoder_seed": Option(
                "encoder_seed", "integer >= 0", "CNP: seed of the encoder's start (default 0)"
            ),
            "by_class": Option(
                "by_class", "switch", "CNP: a mean of encodings for each class, of inputs alone"
            ),
        },
        context=True,
        checked_with=({"encoder": (6, 5)}, {"encoder": (), "encoder_seed": 1}),
    ),
)
