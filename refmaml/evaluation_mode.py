"""A net in evaluation mode: constant batch-norm statistics, and no dropout."""

from typing import Any

import numpy as np

from refmaml.errors import expect
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.eval_batch_norm import EvalBatchNorm2d
from refmaml.layers.extents import rows


def evaluation_mode(net: Any, theta: np.ndarray, x: np.ndarray) -> Any:
    """The net with an EvalBatchNorm2d for each BatchNorm2d, and without dropout.

    theta  (P,): the parameters at which the statistics are taken
    x      (T, N, ...): the examples that they are taken from, all tasks together. As in
           PyTorch after one training pass with momentum=None: the mean, and the
           unbiased variance, of each channel over all T N H W values, layer after
           layer, each layer's input having passed the layers before it in training mode
    Parameters keep their names and places. Raises ArgumentError where a channel has
    fewer than two values.
    """
    pooled = x.reshape(1, -1, *x.shape[2:])  # one task, whose statistics are those of all
    views = net.parameters.views(theta[None])
    layers = with_constant_statistics(net.kernels, net.layers, views, pooled)
    return net.with_layers(layers).evaluation()


def with_constant_statistics(k: Any, layers: Any, w: list, x: np.ndarray) -> list:
    """The layers, also those inside a layer, for one task's x (1, N, ...)."""
    out = []
    for layer, wl in zip(layers, w, strict=True):
        parts = getattr(layer, "parts", {})
        if isinstance(layer, BatchNorm2d):
            out.append(with_statistics(layer, k.to_host(rows(x)[0]).astype(float)))
        elif parts:
            inner = {
                name: with_constant_statistics(k, part, layer.of_part(name, wl), x)
                for name, part in parts.items()
            }
            out.append(type(layer)(**inner))
        else:
            out.append(layer)
        x, _ = layer.forward(k, wl, x)
    return out


def with_statistics(layer: BatchNorm2d, x: np.ndarray) -> EvalBatchNorm2d:
    """The layer in evaluation mode, with the statistics of x (N, C, pixels)."""
    count = x.size // layer.num_features
    wanted = "two values of each channel, or more"
    expect(count > 1, "x", wanted, lambda: f"{count} in the input of {layer}")
    mean, var = x.mean(axis=(0, 2)), x.var(axis=(0, 2)) * (count / (count - 1))
    return EvalBatchNorm2d(
        layer.num_features, tuple(mean), tuple(var), layer.eps, layer.gamma, layer.beta
    )
