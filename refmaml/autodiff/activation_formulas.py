"""Forward formulas of smooth activations, softmax and dropout for one task.

f is the framework, x (N, ...) the input of one task; see formulas.py.
"""

from math import pi, sqrt

import numpy as np

from refmaml import layers


def sigmoid(f, x):
    return (1 + f.xp.tanh(x / 2)) / 2


def gelu(f, layer, w, x):
    if layer.approximate == "tanh":
        return x / 2 * (1 + f.xp.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + f.erf(x / sqrt(2)))


def elu(f, layer, w, x):
    # The exponential of a large x, which is not used, would make its derivative NaN.
    below = f.xp.where(x > 0, f.xp.zeros_like(x), x)
    return f.xp.where(x > 0, x, layer.alpha * f.xp.expm1(below))


def log_softmax(f, layer, w, x):
    shifted = x - f.xp.amax(x, axis=layer.dim, keepdims=True)
    return shifted - f.xp.log(f.xp.exp(shifted).sum(axis=layer.dim, keepdims=True))


def dropout(f, layer, w, x):
    return x if layer.p == 0 else x * f.constant(layer.mask(np, tuple(x.shape), float), x)


FORWARD = {
    layers.Sigmoid: lambda f, layer, w, x: sigmoid(f, x),
    layers.SiLU: lambda f, layer, w, x: x * sigmoid(f, x),
    layers.GELU: gelu,
    layers.ELU: elu,
    layers.Softmax: lambda f, layer, w, x: f.xp.exp(log_softmax(f, layer, w, x)),
    layers.LogSoftmax: log_softmax,
    layers.Dropout: dropout,
    layers.DropBlock2d: dropout,
}
