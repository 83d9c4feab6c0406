"""A net with batch-norm in evaluation mode, its statistics taken from examples."""

from typing import Any

import numpy as np

from refmaml.errors import expect
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.eval_batch_norm import EvalBatchNorm2d
from refmaml.layers.extents import rows


def evaluation_mode(net: Any, theta: np.ndarray, x: np.ndarray) -> Any:
    """The net with an EvalBatchNorm2d in place of each BatchNorm2d.

    theta  (P,): the parameters at which the statistics are taken
    x      (T, N, ...): the examples that they are taken from, all tasks together. As in
           PyTorch after one training pass with momentum=None: the mean, and the
           unbiased variance, of each channel over all T N H W values, layer after
           layer, each layer's input having passed the layers before it in training mode
    Parameters keep their names and places. Raises ArgumentError where a channel has
    fewer than two values.
    """
    layers = list(net.layers)
    pooled = x.reshape(1, -1, *x.shape[2:])  # one task, whose statistics are those of all
    inputs = pooled
    for i, (layer, outputs) in enumerate(net.layer_outputs(theta[None], pooled)):
        if isinstance(layer, BatchNorm2d):
            values = net.kernels.to_host(rows(inputs)[0]).astype(float)
            count = values.size // layer.num_features
            expect(count > 1, "x", "two values of each channel, or more", lambda: f"{x.shape}")
            mean, var = values.mean(axis=(0, 2)), values.var(axis=(0, 2)) * count / (count - 1)
            layers[i] = EvalBatchNorm2d(
                layer.num_features, tuple(mean), tuple(var), layer.eps, layer.gamma, layer.beta
            )
        inputs = outputs
    return type(net)(layers, net.loss_function, net.input_shape, net.kernels)
