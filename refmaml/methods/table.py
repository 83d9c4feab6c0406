"""The table of methods: one entry for each, which all other parts of refmaml read.

What reads an entry, and which of its fields:

    the command line     name, title, defaults, options, context
    the ladder (verify)  cls, gradient, context, checked_with
    golden vectors       cls, golden
    the doctor           cls, gradient, context, probed_with
    the bench            cls, benched_with
    documents, pictures  title
    refmaml's names      cls: rm.MAML is public because of its entry

The entries hold plain data, so that this module imports only the methods themselves.
Those of solved heads, of Laplace's term and of neural processes are in
table_heads_and_bayes.py.
Each import has the form `X as X`, by which type checkers know a name that other modules
may import from here. A new method is one file in refmaml/methods/ and one entry here
with its import; docs/add_a_method.md shows a complete example.
"""

from refmaml.methods.alpaca import ALPaCA as ALPaCA
from refmaml.methods.anil import ANIL as ANIL
from refmaml.methods.anil import FirstOrderANIL as FirstOrderANIL
from refmaml.methods.cavia import CAVIA as CAVIA
from refmaml.methods.cnp import CNP as CNP
from refmaml.methods.erm import ERM as ERM
from refmaml.methods.first_order_maml import FirstOrderMAML as FirstOrderMAML
from refmaml.methods.imaml import IMAML as IMAML
from refmaml.methods.llama import LLAMA as LLAMA
from refmaml.methods.lrd2 import LRD2 as LRD2
from refmaml.methods.maml import MAML as MAML
from refmaml.methods.maml_plus_plus import MAMLPlusPlus as MAMLPlusPlus
from refmaml.methods.meta_curvature import MetaCurvature as MetaCurvature
from refmaml.methods.meta_sgd import MetaSGD as MetaSGD
from refmaml.methods.metaoptnet import MetaOptNet as MetaOptNet
from refmaml.methods.r2d2 import R2D2 as R2D2
from refmaml.methods.released_imaml import ReleasedIMAML as ReleasedIMAML
from refmaml.methods.reptile import Reptile as Reptile
from refmaml.methods.table_entry import (
    ALL_NETS,
    DAMPED,
    DISPLACEMENT,
    FIRST_ORDER,
    IMPLICIT,
    NETS_WITH_A_BODY,
    NETS_WITH_BATCH_NORM,
    NETS_WITH_CONTEXT,
    NETS_WITH_EXAMPLES,
    NETS_WITHOUT_DEAD_BIASES,
    SMOOTH_NETS,
    Entry,
    GoldenCase,
    Option,
)
from refmaml.methods.table_heads_and_bayes import HEADS_AND_BAYES
from refmaml.methods.table_settings import (
    ADAM,
    ALPHA,
    CONTEXT,
    CONVERGED,
    FROZEN,
    MOMENTUM,
    SOLVED_BY_MOMENTUM,
    SOLVED_WITH_CONTROL,
    SPREAD,
    THREE_STEPS,
    WEIGHTS,
)

TABLE = (
    Entry(
        "maml",
        MAML,
        "MAML",
        checked_with=({}, FROZEN, MOMENTUM),
        benched_with={"inner_lr": 0.01, "inner_steps": 2},
        golden=(
            GoldenCase("maml-1", ALL_NETS, ALPHA),
            GoldenCase("maml-3", ALL_NETS, THREE_STEPS),
            GoldenCase("maml-3-frozen-bn", NETS_WITH_BATCH_NORM, THREE_STEPS | FROZEN),
            GoldenCase("maml-1", NETS_WITH_CONTEXT, ALPHA),
        ),
    ),
    Entry(
        "fomaml",
        FirstOrderMAML,
        "first-order MAML",
        FIRST_ORDER,
        checked_with=({}, MOMENTUM),
        golden=(GoldenCase("fomaml-3", ALL_NETS, THREE_STEPS),),
    ),
    Entry(
        "anil",
        ANIL,
        "ANIL",
        checked_with=({}, MOMENTUM),
        golden=(GoldenCase("anil-3", NETS_WITH_A_BODY, THREE_STEPS),),
    ),
    Entry(
        "fo-anil",
        FirstOrderANIL,
        "first-order ANIL",
        FIRST_ORDER,
        checked_with=({}, MOMENTUM),
        golden=(GoldenCase("fo-anil-3", NETS_WITH_A_BODY, THREE_STEPS),),
    ),
    Entry("erm", ERM, "ERM", defaults={"frozen": None}, golden=(GoldenCase("erm", ALL_NETS, {}),)),
    Entry(
        "meta-sgd",
        MetaSGD,
        "Meta-SGD",
        checked_with=({}, FROZEN, MOMENTUM),
        golden=(
            GoldenCase("meta-sgd-2", ALL_NETS, ALPHA | {"inner_steps": 2}),
            GoldenCase(
                "meta-sgd-2-frozen-bn", NETS_WITH_BATCH_NORM, ALPHA | {"inner_steps": 2} | FROZEN
            ),
        ),
    ),
    Entry(
        "meta-curvature",
        MetaCurvature,
        "Meta-Curvature",
        # Park & Oliva 2019, section 5.1: a mean loss
        defaults={"loss_scale": "mean", "frozen": None},
        checked_with=(SPREAD, SPREAD | FROZEN, SPREAD | MOMENTUM),
    ),
    Entry(
        "maml++",
        MAMLPlusPlus,
        "MAML++",
        # Antoniou et al. 2019, their Omniglot configuration
        defaults={"inner_steps": 5, "inner_lr": 0.1, "loss_scale": "mean"},
        options={
            "per_step_norm": Option(
                "per_step_norm",
                "switch",
                "MAML++: batch-norm weights and biases of their own for each inner step",
            )
        },
        checked_with=({}, FROZEN, WEIGHTS, WEIGHTS | MOMENTUM),
        golden=(
            GoldenCase("mamlpp-3", ALL_NETS, THREE_STEPS | {"loss_weights": (0.25, 0.25, 0.5)}),
        ),
    ),
    Entry(
        "cavia",
        CAVIA,
        "CAVIA",
        # Zintgraf et al. 2019, section 5.1
        defaults={"inner_lr": 1.0, "loss_scale": "mean", "frozen": None},
        options={"context": CONTEXT},
        context=True,
        checked_with=({}, MOMENTUM),
        golden=(GoldenCase("cavia-2", NETS_WITH_CONTEXT, ALPHA | {"inner_steps": 2}),),
    ),
    Entry(
        "reptile",
        Reptile,
        "Reptile",
        DISPLACEMENT,
        # Nichol et al. 2018, their 1-shot 5-way Omniglot flags
        defaults={
            "inner_steps": 5,
            "inner_lr": 1e-3,
            "inner_optimizer": "adam",
            "inner_batch": 10,
            "train_shots": 10,
            "support_order": "shuffled",
            "tasks": 5,
            "optimizer": "sgd",
            "lr": 1.0,
            "schedule": "linear",
            "frozen": None,
        },
        options={
            "inner_optimizer": Option("optimizer", ("sgd", "adam"), "Reptile: the inner optimiser"),
            "inner_moment": Option(
                "moment",
                ("fresh", "carried"),
                "Reptile: where the inner Adam's second moment starts in a task",
            ),
        },
        checked_with=(
            {"inner_lr": 0.1, "inner_steps": 5},
            {"inner_lr": 0.1, "inner_steps": 5, "inner_batch": 4},
            ADAM,
            ADAM | {"moment": "carried"},
            MOMENTUM | {"inner_batch": 4},
        ),
        benched_with={"inner_lr": 0.01, "inner_steps": 1, "optimizer": "adam"},
        golden=(
            GoldenCase("reptile-3", ALL_NETS, THREE_STEPS),
            GoldenCase("reptile-minibatch-3", NETS_WITH_EXAMPLES, THREE_STEPS | {"inner_batch": 2}),
            # Not where a bias comes before batch-norm: its gradient is 0 but for
            # rounding, and Adam's g / sqrt(v) would make a full step of that.
            GoldenCase(
                "reptile-adam-3",
                NETS_WITHOUT_DEAD_BIASES,
                {
                    "inner_lr": 0.0625,
                    "inner_steps": 3,
                    "optimizer": "adam",
                    "inner_batch": 2,
                    "eps": 2.0**-20,
                },
            ),
        ),
    ),
    Entry(
        "imaml",
        IMAML,
        "iMAML",
        IMPLICIT,
        # Rajeswaran et al. 2019, their Omniglot flags
        defaults={"inner_steps": 16, "inner_lr": 0.1, "loss_scale": "mean", "frozen": None},
        options={
            "regularization": Option("regularization", "number > 0", "iMAML: lambda"),
            "cg_steps": Option("cg_steps", "integer >= 1", "iMAML: steps of conjugate gradients"),
            "inner_solver": Option(
                "solver",
                ("gradient_descent", "controlled_descent", "newton_cg"),
                "iMAML: the inner solver",
            ),
            "inner_tol": Option(
                "inner_tol",
                "number >= 0",
                "iMAML: a task's inner steps end at this residual (default 0: after --inner-steps)",
            ),
        },
        checked_with=(CONVERGED, CONVERGED | FROZEN, SOLVED_BY_MOMENTUM, SOLVED_WITH_CONTROL),
        probed_with={
            "inner_steps": 60,
            "inner_tol": 0.0,
            "solver": "gradient_descent",
            "cg_steps": 20,
            "cg_tol": 1e-15,
        },
        benched_with={"regularization": 2.0, "inner_steps": 1, "cg_steps": 1},
        golden=(
            GoldenCase(
                "imaml",
                ALL_NETS,
                {"regularization": 2.0, "inner_lr": 0.125, "inner_steps": 4, "cg_steps": 3},
            ),
            GoldenCase(
                "imaml-solved",
                SMOOTH_NETS,
                {
                    "regularization": 2.0,
                    "inner_steps": 30,
                    "solver": "newton_cg",
                    "cg_steps": 100,
                    "cg_tol": 1e-15,
                },
            ),
        ),
    ),
    Entry(
        "imaml-released",
        ReleasedIMAML,
        "iMAML, the authors' program",
        DAMPED,
        defaults={"inner_steps": 16, "inner_lr": 0.1, "loss_scale": "mean", "frozen": None},
        checked_with=({"cg_steps": 100, "cg_tol": 1e-15},),
    ),
    *HEADS_AND_BAYES,
)
BY_NAME = {entry.name: entry for entry in TABLE}


def entry_of(method: object) -> Entry | None:
    """The Entry of a method's class or of its nearest base class; else None."""
    by_class = {entry.cls: entry for entry in TABLE}
    found = (by_class[cls] for cls in type(method).__mro__ if cls in by_class)
    return next(found, None)
