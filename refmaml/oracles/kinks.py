"""How far inputs are from a kink, where one-sided derivatives differ and no derivative check means anything."""

import numpy as np

from refmaml.layers import LeakyReLU, MaxPool2d, ReLU


def layer_margin(layer, x, dead=False):
    """The smallest relative change of an input that could flip a choice of this layer: min |x| / max |x| for ReLU, the smallest
    gap between the two largest of a window over max |x| for max-pooling, infinite for smooth layers; 0 where all inputs are 0.

    dead=True: x comes from a ReLU, and windows it has set to 0 throughout are left out. Their winners tie, but whoever wins, the
    ReLU lets no derivative through.
    """
    least = np.inf
    if isinstance(layer, (ReLU, LeakyReLU)):
        least = np.abs(x).min()
    if isinstance(layer, MaxPool2d) and np.prod(layer.geometry()[0]) > 1:
        (kH, kW), (sH, sW) = layer.geometry()
        seen = np.lib.stride_tricks.sliding_window_view(x, (kH, kW), axis=(3, 4))[
            :, :, :, ::sH, ::sW
        ]
        ordered = np.sort(seen.reshape(-1, kH * kW), axis=-1)
        ordered = ordered[ordered[:, -1] != 0] if dead else ordered
        least = (ordered[:, -1] - ordered[:, -2]).min(initial=np.inf)
    return float(least / (np.abs(x).max() or 1))


def net_margin(net, w, x):
    """The smallest margin of any layer in a forward pass of `net` at w (1 or T, P) on x (T, N, ...)."""
    margin, before = np.inf, None
    for layer, wl in zip(net.layers, net.parameters.views(w), strict=True):
        margin = min(margin, layer_margin(layer, x, dead=isinstance(before, ReLU)))
        x, _ = layer.forward(net.kernels, wl, x)
        before = layer
    return margin
