"""The layer of refmaml for one layer of torch.nn.

A class of torch.nn whose name refmaml.layers has as well is converted field by field,
because both give their arguments the same names. SPECIAL has the other classes, and
those whose arguments differ.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

from refmaml import layers
from refmaml.errors import ArgumentError, expect

# Arguments that change no number which refmaml computes: where a tensor lies, whether
# it is overwritten, how running statistics are updated. How padding counts in an
# average does not matter either, since `padding` itself must be 0.
WITHOUT_EFFECT = {
    "device", "dtype", "inplace", "momentum", "track_running_stats", "count_include_pad",
}  # fmt: skip

# The losses of torch.nn that take the net's outputs and the targets, and refmaml's.
LOSSES = {
    "CrossEntropyLoss": "CrossEntropy",
    "MSELoss": "MSE",
    "BCEWithLogitsLoss": "BCEWithLogits",
    "HuberLoss": "Huber",
}
WEIGHTED = "WeightedCrossEntropy"  # with label smoothing or with weights of classes

# Layers of torchvision.ops that are converted by name, and modules that drop entries.
OF_TORCHVISION = ("DropBlock2d",)
DROPPING = ("Dropout", *OF_TORCHVISION)

ADVICE = "; rm.check_meta_gradient can judge your meta-gradient function without this net"


def convert(module, where):
    """A layer, or None for a module that changes nothing.

    where  the name of the module, for error messages
    Raises ArgumentError for a module or an argument that refmaml does not have.
    """
    name = type(module).__name__
    ok = name in known() or is_of_torchvision(module)
    expect(ok, f"layer '{where}'", one_of_known(), f"nn.{name}{ADVICE}")
    try:
        return SPECIAL[name].convert(module) if name in SPECIAL else same_name(module)
    except ArgumentError as error:
        raise ArgumentError(f"layer '{where}' (nn.{name}): {error}") from None


def is_of_torchvision(module):
    """Whether a module is one of the layers of torchvision.ops that are converted."""
    cls = type(module)
    return cls.__name__ in OF_TORCHVISION and cls.__module__.startswith("torchvision.")


def known():
    """The classes of torch.nn that can be converted, by name."""
    from torch import nn

    shared = {
        name
        for name in layers.__all__
        if hasattr(getattr(layers, name), "r_forward") and hasattr(nn, name)
    }
    special = {name for name, entry in SPECIAL.items() if has_layer(entry.layer)}
    special -= set(OF_TORCHVISION)
    return sorted((shared - set(SPECIAL)) | special)


def one_of_known():
    """The same for error messages."""
    return f"one of {', '.join(f'nn.{name}' for name in known())}"


def convert_loss(loss):
    """A loss of refmaml: the one given, or that of a loss of torch.nn.

    Raises ArgumentError for a loss or an argument that refmaml does not have.
    """
    if not type(loss).__module__.startswith("torch.nn"):
        return loss
    name, known = type(loss).__name__, [cls for cls, own in LOSSES.items() if has_layer(own)]
    expect(name in known, "loss", f"one of nn.{', nn.'.join(known)}", f"nn.{name}")
    values = {argument: numbers(value) for argument, value in arguments(loss).items()}
    own = LOSSES[name]
    if values.get("label_smoothing") or (own == "CrossEntropy" and values["weight"] is not None):
        own = WEIGHTED if has_layer(WEIGHTED) else own
    try:
        return with_fields(own, values, defaults(loss))
    except ArgumentError as error:
        raise ArgumentError(f"loss (nn.{name}): {error}") from None


def numbers(value):
    """A tensor as a list of numbers, anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def has_layer(name):
    """Whether refmaml has a layer or a loss of that name; None needs none."""
    return name is None or hasattr(layers, name)


def same_name(module, **replaced):
    """The layer that has the module's class name, with the module's arguments.

    replaced  arguments that differ from the module's own
    """
    return with_fields(type(module).__name__, arguments(module) | replaced, defaults(module))


def with_fields(name, values, usual):
    """A layer of refmaml from arguments by name; `usual` are torch's defaults.

    An argument that the layer does not have must have its usual value.
    """
    cls = getattr(layers, name)
    own = {field.name for field in fields(cls)}
    for argument, value in values.items():
        if argument not in own | WITHOUT_EFFECT:
            wanted = usual.get(argument)
            expect(value in (wanted, (wanted, wanted)), argument, repr(wanted), repr(value))
    return cls(**{argument: value for argument, value in values.items() if argument in own})


def signature(module):
    """The arguments of the module's constructor."""
    parameters = inspect.signature(type(module).__init__).parameters
    return {name: p for name, p in parameters.items() if name not in ("self", "device", "dtype")}


def defaults(module):
    """{argument: default} of the module's constructor."""
    return {name: p.default for name, p in signature(module).items() if p.default is not p.empty}


def arguments(module):
    """{argument: value} that the module was made with; bias: whether there is one.

    A norm that is not affine has neither weight nor bias, so its bias is left out.
    """
    values = {name: getattr(module, name) for name in signature(module) if hasattr(module, name)}
    if "bias" in values:
        values["bias"] = module.bias is not None
        if module.weight is None:
            del values["bias"]
    return values


# ---- one function for each class whose arguments differ ------------------------------


def conv2d(module):
    """torch's "valid" is padding 0. Its "same" needs stride 1: there both are equal."""
    valid = module.padding == "valid"
    return same_name(module, **({"padding": 0} if valid else {}))


def batch_norm(module):
    """Batch statistics, on images or vectors; affine becomes gamma and beta."""
    expect_batch_statistics(module)
    return layers.BatchNorm2d(
        module.num_features,
        eps=module.eps,
        gamma=module.weight is not None,
        beta=module.bias is not None,
    )


def instance_norm(module):
    expect_batch_statistics(module)
    return same_name(module)


def expect_batch_statistics(module):
    """Raise ArgumentError if the module normalises with its running statistics."""
    expect(
        module.training or module.running_mean is None,
        "statistics",
        "those of the batch (module.train(), or track_running_stats=False)",
        "running statistics in eval mode",
    )


def adaptive_average(module):
    """The mean over all positions, without their axes."""
    expect(module.output_size in (1, (1, 1)), "output_size", "1", repr(module.output_size))
    return layers.SpatialMean()


def dropout(module):
    """Nothing in eval mode or with p = 0."""
    if not module.training or module.p == 0:
        return None
    expect(has_layer(type(module).__name__), "p", "0, or eval mode", repr(module.p))
    return same_name(module)


class Special(NamedTuple):
    """A conversion, and the layer of refmaml that it needs; None: it needs none."""

    layer: str | None
    convert: Callable


SPECIAL = {
    "Conv2d": Special("Conv2d", conv2d),
    "BatchNorm1d": Special("BatchNorm2d", batch_norm),
    "BatchNorm2d": Special("BatchNorm2d", batch_norm),
    "InstanceNorm2d": Special("InstanceNorm2d", instance_norm),
    "AdaptiveAvgPool2d": Special("SpatialMean", adaptive_average),
    "Dropout": Special(None, dropout),
    "DropBlock2d": Special(None, dropout),
    "Identity": Special(None, lambda module: None),
}
