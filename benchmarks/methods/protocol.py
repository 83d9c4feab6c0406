"""What each method trains with: one net, the same tasks, the same evaluation.

The protocol is "equal" of the Omniglot table (refmaml/cli/omniglot/protocols.py), on
the glyphs that refmaml makes itself: 5-way 1-shot, the strided conv4 net with 64
channels, 32 tasks in a meta-step (Reptile: 5), Adam at 1e-3. Settings of MAML,
first-order MAML and Reptile are those of that table. ANIL, Meta-Curvature and LLAMA
take MAML's inner loop; the solved heads their defaults (`refmaml train`). CNP has a
mean of encodings for each class, as its paper has for classification: 24 numbers each,
from an encoder with layers of 256 and 64.
"""

from refmaml.cli import options
from refmaml.cli.omniglot.protocols import COMMON, EQUAL, ONE_STEP, OWN, SHAPES
from refmaml.methods.table import BY_NAME

METHODS = (
    "r2d2", "lrd2", "metaoptnet", "alpaca", "meta-curvature", "llama", "maml", "anil", "fomaml",
    "reptile", "cnp",
)  # fmt: skip
TITLES = {name: BY_NAME[name].title for name in METHODS}
# What only data read from files has.
OF_FILES = ("resample", "split_by", "invert", "split_seed", "train_classes", "validation_classes")
EVERY = {
    name: value for name, value in (COMMON | SHAPES["5w1s"] | EQUAL).items() if name not in OF_FILES
} | {"data": "glyphs"}
SETTINGS = {
    **{name: {} for name in METHODS},
    **{name: ONE_STEP for name in ("maml", "anil", "fomaml", "meta-curvature", "llama")},
    "cnp": {"by_class": True, "context": 5 * 24, "encoder": [256, 64]},
    "reptile": {name: value for name, value in OWN["reptile"].items() if name != "steps"},
}
# Reptile's step size falls to 0, so it needs a number of steps: one core of the machine
# of methods.json takes 970 a minute.
REPTILE_STEPS_PER_CORE_MINUTE = 900


def configuration(name, core_minutes, **changes):
    """All options of a run, as `refmaml train --config` reads them.

    core_minutes   the minutes of one core that it may take
    changes        other values of options, for a test
    """
    limits = {"steps": None, "minutes": core_minutes}
    if name == "reptile":
        limits["steps"] = max(1, round(REPTILE_STEPS_PER_CORE_MINUTE * core_minutes))
    given = EVERY | SETTINGS[name] | {"method": name} | limits | changes
    return options.settle(given) | given  # `given` again: it may have empty lists on purpose
