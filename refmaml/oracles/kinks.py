"""The distance of inputs from a kink.

At a kink the one-sided derivatives differ, and a check of derivatives has no meaning.
"""

import numpy as np

from refmaml.layers import ELU, Dropout, LeakyReLU, MaxPool2d, ReLU


def layer_margin(layer, x, dead=False, w=None, kernels=None):
    """The smallest relative change of an input that could flip a choice of this layer.

    ReLU and ELU: min |x| / max |x|. Max-pooling: the smallest gap between the two
    largest values of a window, over max |x|. Smooth layers: infinite. 0 if all inputs
    are 0.

    dead=True: x is the output of a ReLU or a Dropout, and windows of zeros are left
    out. All their values are equal, but no derivative goes back to any of them.

    w, kernels  the parameters and the kernels of a layer that consists of layers
    """
    if parts := getattr(layer, "parts", {}):
        return min(
            sequence_margin(inner, layer.of_part(part, w), x, kernels, dead)
            for part, inner in parts.items()
        )
    least = np.inf
    if isinstance(layer, (ReLU, LeakyReLU, ELU)):
        least = np.abs(x).min()
    if isinstance(layer, MaxPool2d) and np.prod(layer.geometry()[0]) > 1:
        (kH, kW), (sH, sW) = layer.geometry()
        windows = np.lib.stride_tricks.sliding_window_view(x, (kH, kW), axis=(3, 4))[
            :, :, :, ::sH, ::sW
        ]
        ordered = np.sort(windows.reshape(-1, kH * kW), axis=-1)
        ordered = ordered[ordered[:, -1] != 0] if dead else ordered
        least = (ordered[:, -1] - ordered[:, -2]).min(initial=np.inf)
    return float(least / (np.abs(x).max() or 1))


def net_margin(net, w, x):
    """The smallest margin of all layers in a pass at w (1 or T, P) on x (T, N, ...)."""
    return sequence_margin(net.layers, net.parameters.views(w), x, net.kernels)


def sequence_margin(layers, w, x, kernels, dead=False):
    """The smallest margin of layers in a row; w: the arrays of each layer."""
    margin = np.inf
    for layer, wl in zip(layers, w, strict=True):
        margin = min(margin, layer_margin(layer, x, dead, wl, kernels))
        x, _ = layer.forward(kernels, wl, x)
        dead = isinstance(layer, ReLU | Dropout)
    return margin
