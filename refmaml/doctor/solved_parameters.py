"""What methods that solve or encode learn besides the net: names, shapes, use.

    R2-D2, LR-D2, MetaOptNet   head.log_strength, head.scale, head.shift, (1,) each
    ALPaCA                     prior.factor (G, G), log_noise (1,)
    CNP                        encoder.0.weight, ...: the encoder's own, by its layers
    Meta-Curvature             curvature.NAME.outputs and others

Theta's own last layer (the context, for CNP) is replaced by what a task computes: its
derivative is 0, and it may be missing in an answer. ALPaCA's is the prior's mean.
"""

import numpy as np

from refmaml.methods import CNP, ALPaCA, SolvedHead
from refmaml.methods.features import body_of
from refmaml.oracles.kinks import net_margin

ETA = ("head.log_strength", "head.scale", "head.shift")


def extra_shapes(method, net):
    """{name: shape} behind the net's own in a meta vector; {} for other methods."""
    if hasattr(method, "matrix_shapes"):
        return method.matrix_shapes(net)
    if isinstance(method, SolvedHead):
        return dict.fromkeys(ETA, (1,))
    if isinstance(method, ALPaCA):
        G = method.features(net)
        return {"prior.factor": (G, G), "log_noise": (1,)}
    if isinstance(method, CNP):
        shapes = method.encoder_net(net).shapes
        return {f"encoder.{name}": shape for name, shape in shapes.items()}
    return {}


def extra_places(method, net):
    """{name: indices into a meta vector, in the named array's shape}."""
    places, start = {}, net.num_params
    for name, shape in extra_shapes(method, net).items():
        size = int(np.prod(shape))
        places[name] = start + np.arange(size).reshape(shape)
        start += size
    return places


def replaced(method, net):
    """Names of the net's parameters whose values a task replaces."""
    if isinstance(method, SolvedHead):
        return set(net.shapes) - set(body_of(net).shapes)
    if isinstance(method, CNP):
        context = net.mask(("context",))
        return {name for name, part in net.parameters.slices.items() if context[part].any()}
    return set()


def encoder_margin(case):
    """The relative distance of the nearest kink of CNP's encoder; infinite without."""
    if not isinstance(case.method, CNP):
        return np.inf
    encoder, b = case.method.encoder_net(case.net), case.batch
    examples = case.method.inputs(case.net, b.x_support, b.y_support, case.meta)
    return net_margin(encoder, case.meta[None, case.net.num_params :], examples)
