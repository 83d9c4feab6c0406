"""How far inputs are from a kink, where one-sided derivatives differ and no derivative check means anything."""
import numpy as np

from refmaml.layers import LeakyReLU, MaxPool2d, ReLU


def layer_margin(layer, x, dead=False):
    """The smallest relative change of an input that could flip a choice of this layer: min |x| / max |x| for ReLU, the smallest
    gap between the two largest of a window over max |x| for max-pooling, infinite for smooth layers.

    dead=True: x comes from a ReLU, and windows it has set to 0 throughout are left out. Their winners tie, but whoever wins, the
    ReLU lets no derivative through.
    """
    size = np.abs(x).max()
    if isinstance(layer, (ReLU, LeakyReLU)):
        return float(np.abs(x).min() / size)
    if isinstance(layer, MaxPool2d):
        (kH, kW), (sH, sW) = layer.geometry()
        seen = np.lib.stride_tricks.sliding_window_view(x, (kH, kW), axis=(3, 4))[:, :, :, ::sH, ::sW]
        ordered = np.sort(seen.reshape(-1, kH * kW), axis=-1)
        ordered = ordered[ordered[:, -1] != 0] if dead else ordered
        return float((ordered[:, -1] - ordered[:, -2]).min() / size) if kH * kW > 1 else np.inf
    return np.inf


def net_margin(net, w, x):
    """The smallest margin of any layer in a forward pass of `net` at w (1 or T, P) on x (T, N, ...)."""
    margin, before = np.inf, None
    for layer, wl in zip(net.layers, net.parameters.views(w), strict=True):
        margin = min(margin, layer_margin(layer, x, dead=isinstance(before, ReLU)))
        x, _ = layer.forward(net.kernels, wl, x)
        before = layer
    return margin
