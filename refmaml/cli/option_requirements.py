"""Options that need a value of another option."""

from refmaml.cli import presets
from refmaml.methods.table import TABLE

FILES_ONLY = (
    "data_root",
    "resample",
    "invert",
    "split_seed",
    "train_classes",
    "validation_classes",
)
OMNIGLOT_ONLY = ("download", "split_by")
FOLDER_ONLY = ("size", "color")
CONV4_ONLY = ("channels", "downsample", "padding", "head", "head_init", "weight_gain", "norm")
BATCH_NORM_ONLY = ("bn_gamma", "bn_eps")
OTHER = (*presets.IMAGES, *presets.POLICIES)
REGRESSIONS = tuple(name for name in presets.BY_DATA if name not in OTHER)
IMAGES_ONLY = ("n_way", "support_order", "rotations", "eval_rotations", "split")

# Options that need a value of another: {option: (the other option, its values)}. The
# other option may itself need a value of a third.
REQUIRES = {
    **{name: ("data", presets.IMAGES) for name in IMAGES_ONLY},
    **{name: ("data", ("omniglot", "folder")) for name in FILES_ONLY},
    **{name: ("data", ("omniglot",)) for name in OMNIGLOT_ONLY},
    **{name: ("data", ("folder",)) for name in FOLDER_ONLY},
    **{name: ("data", ("linear",)) for name in ("dim", "rank")},
    **{name: ("net", ("conv4",)) for name in CONV4_ONLY},
    **{name: ("norm", ("batch",)) for name in BATCH_NORM_ONLY},
    "likelihood": ("data", REGRESSIONS),
    **{name: ("data", ("completion",)) for name in ("fewest_shots", "frequencies")},
    "threads": ("kernels", ("auto", "cpu")),
    "hidden": ("net", ("mlp",)),
    **{
        name: ("data", presets.POLICIES)
        for name in ("estimator", "trajectories", "horizon", "discount", "max_kl")
    },
    "mlp_init": ("net", ("mlp",)),
    "width": ("net", ("resnet12",)),
    **{
        name: ("method", tuple(e.name for e in TABLE if name in e.options))
        for entry in TABLE
        for name, option in entry.options.items()
        if option.field is None
    },
}
