"""Every forward pass as plain loops over tasks, examples and single numbers.

Slow, and as simple as possible: these are the definitions that all else is checked
with; loss_loops.py has those of the losses. A layer that has no formula here is checked
for what holds of all layers: a task's outputs depend on that task alone.
"""

from itertools import product
from math import erf, exp, log, pi, sqrt, tanh

import numpy as np

from refmaml.layers.walk import all_layers


def windows(layer, x):
    """Window size, output size, (i, j, row, column) of each window, padded image.

    For layers with a `geometry`: convolutions and poolings.
    """
    _, H, W = x.shape
    if hasattr(layer, "padding"):
        (kH, kW), (sH, sW), ((top, bottom), (left, right)), (Ho, Wo) = layer.geometry((H, W))
        padded = np.zeros((len(x), top + H + bottom, left + W + right))
        padded[:, top : top + H, left : left + W] = x
    else:
        ((kH, kW), (sH, sW)), padded = layer.geometry(), x
        Ho, Wo = (H - kH) // sH + 1, (W - kW) // sW + 1
    return (
        (kH, kW),
        (Ho, Wo),
        [(i, j, i * sH, j * sW) for i in range(Ho) for j in range(Wo)],
        padded,
    )


def conv2d(layer, w, x):
    """One image (C, H, W) under filters (O, C / groups, kH, kW)."""
    (kH, kW), (Ho, Wo), places, padded = windows(layer, x)
    dH, dW = layer.dilation if isinstance(layer.dilation, tuple) else (layer.dilation,) * 2
    C, O = len(x) // layer.groups, layer.out_channels // layer.groups  # of a group
    y = np.zeros((layer.out_channels, Ho, Wo))
    for o, (i, j, row, column) in product(range(layer.out_channels), places):
        for c, p, q in product(range(C), range(kH), range(kW)):
            pixel = padded[o // O * C + c, row + dH * p, column + dW * q]
            y[o, i, j] += w["weight"][o, c, p, q] * pixel
        y[o, i, j] += w["bias"][o] if layer.bias else 0
    return y


def linear(layer, w, x):
    """One vector (I,)."""
    y = np.zeros(layer.out_features)
    for o in range(layer.out_features):
        for i in range(layer.in_features):
            y[o] += w["weight"][o, i] * x[i]
        y[o] += w["bias"][o] if layer.bias else 0
    return y


def cosine_linear(layer, w, x):
    """One vector (I,): the cosine of its angle to each row of weights, times a."""
    a = w["scale"][0] if layer.learned_scale else layer.scale
    y, size = np.zeros(layer.out_features), sqrt(sum(v * v for v in x) + layer.eps)
    for o, row in enumerate(w["weight"]):
        product = sum(u * v for u, v in zip(row, x, strict=True))
        y[o] = a * product / size / sqrt(sum(u * u for u in row) + layer.eps)
    return y


def pooled(layer, x, choose):
    """One image, with choose(numbers of a window) for each window."""
    (kH, kW), (Ho, Wo), places, padded = windows(layer, x)
    y = np.zeros((len(x), Ho, Wo))
    for c, (i, j, row, column) in product(range(len(x)), places):
        y[c, i, j] = choose([padded[c, row + p, column + q] for p in range(kH) for q in range(kW)])
    return y


def film(layer, w, x):
    """One input (C, ...): gamma x + beta, both linear in the context."""
    y, C = np.zeros(x.shape), layer.num_features
    for c in range(C):
        gamma = w["bias"][c] + sum(w["weight"][c, s] * w["context"][s] for s in range(layer.size))
        beta = w["bias"][C + c] + sum(
            w["weight"][C + c, s] * w["context"][s] for s in range(layer.size)
        )
        for place in np.ndindex(x.shape[1:]):
            y[(c, *place)] = gamma * x[(c, *place)] + beta
    return y


def softmax(layer, w, x):
    """One input, or the logarithm for LogSoftmax: line by line along the dimension."""
    logarithm = type(layer).__name__ == "LogSoftmax"

    def of_line(line):
        p = [exp(v) / sum(exp(u) for u in line) for v in line]
        return [log(v) for v in p] if logarithm else p

    return np.apply_along_axis(of_line, layer.dim - 1 if layer.dim > 0 else layer.dim, x)


def average(values):
    """The mean of a list of numbers."""
    return sum(values) / len(values)


def normalised(layer, values):
    """(v - mean) / sqrt(variance + eps) of each v in an array, over all of them."""
    mean = average(list(values.ravel()))
    variance = average([(v - mean) ** 2 for v in values.ravel()])
    return (values - mean) / sqrt(variance + layer.eps)


def group_norm(layer, w, x, groups):
    """One example (C, ...): each group of channels by itself."""
    size = len(x) // groups
    y = np.concatenate([normalised(layer, x[i : i + size]) for i in range(0, len(x), size)])
    for c in range(len(x) if w else 0):
        y[c] = w["weight"][c] * y[c] + w["bias"][c]
    return y


def layer_norm(layer, w, x):
    """One example: the last dimensions at each place of the others."""
    y, before = np.zeros(x.shape), x.shape[: x.ndim - len(layer.normalized_shape)]
    for place in np.ndindex(before):
        y[place] = w.get("weight", 1) * normalised(layer, x[place]) + w.get("bias", 0)
    return y


def gelu(layer, x):
    """One number: x times the normal distribution function, or its approximation."""
    if layer.approximate == "tanh":
        return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + erf(x / sqrt(2)))


SCALARS = {
    "ReLU": lambda layer, x: x if x > 0 else 0.0,
    "LeakyReLU": lambda layer, x: x if x > 0 else layer.negative_slope * x,
    "Tanh": lambda layer, x: tanh(x),
    "Softplus": lambda layer, x: log(1 + exp(x)),
    "Sigmoid": lambda layer, x: 1 / (1 + exp(-x)),
    "SiLU": lambda layer, x: x / (1 + exp(-x)),
    "GELU": gelu,
    "ELU": lambda layer, x: x if x > 0 else layer.alpha * (exp(x) - 1),
}

EXAMPLES = {
    "Conv2d": conv2d,
    "Linear": linear,
    "CosineLinear": cosine_linear,
    "FiLM": film,
    "MaxPool2d": lambda layer, w, x: pooled(layer, x, max),
    "AvgPool2d": lambda layer, w, x: pooled(layer, x, average),
    "SpatialMean": lambda layer, w, x: np.array([average(list(channel.ravel())) for channel in x]),
    "Flatten": lambda layer, w, x: np.array([x[place] for place in np.ndindex(x.shape)]),
    "Context": lambda layer, w, x: np.array(
        list(x) + [c if x.ndim == 1 else np.full(x.shape[1:], c) for c in w["context"]]
    ),
    "GroupNorm": lambda layer, w, x: group_norm(layer, w, x, layer.num_groups),
    "InstanceNorm2d": lambda layer, w, x: group_norm(layer, w, x, len(x)),
    "LayerNorm": layer_norm,
    "Softmax": softmax,
    "LogSoftmax": softmax,
}


def batch_norm(layer, w, x):
    """All examples (N, C, ...) of one task: only batch-norm mixes examples."""
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        values = list(x[:, c].ravel())
        mean = average(values)
        variance = average([(v - mean) ** 2 for v in values])
        gamma = w["weight"][c] if layer.gamma else 1
        beta = w["bias"][c] if layer.beta else 0
        for place in np.ndindex(x[:, c].shape):
            n, *rest = place
            y[(n, c, *rest)] = gamma * (x[(n, c, *rest)] - mean) / sqrt(variance + layer.eps) + beta
    return y


def residual(layer, w, x):
    """Inputs (T, N, ...) of all tasks: the sum of two sequences of layers."""
    terms = []
    for part, inner in layer.parts.items():
        term = x
        for inner_layer, wl in zip(inner, layer.of_part(part, w), strict=True):
            term = forward(inner_layer, wl, term)
        terms.append(term)
    return terms[0] + terms[1]


def known(layer):
    """Whether this module has a formula for a layer's class, and for all inside it."""
    formulas = (*SCALARS, *EXAMPLES, "BatchNorm2d", "Residual")
    return all(type(inner).__name__ in formulas for inner in all_layers([layer]))


def forward(layer, w, x):
    """y (T, N, ...) of a layer from w (dict of (T, ...)) and x (T, N, ...)."""
    kind = type(layer).__name__
    if kind == "Residual":
        return residual(layer, w, x)
    tasks = []
    for t in range(len(x)):
        wt = {name: a[t] for name, a in w.items()}
        if kind == "BatchNorm2d":
            y = batch_norm(layer, wt, x[t])
        elif kind in SCALARS:
            y = np.array([SCALARS[kind](layer, v) for v in x[t].ravel()]).reshape(x[t].shape)
        else:
            y = np.array([EXAMPLES[kind](layer, wt, example) for example in x[t]])
        tasks.append(y)
    return np.array(tasks)


def task_by_task(kernels, layer, w, x):
    """y (T, N, ...) by the layer's own forward pass, one task at a time."""
    tasks = [
        layer.forward(kernels, {name: a[t : t + 1] for name, a in w.items()}, x[t : t + 1])[0]
        for t in range(len(x))
    ]
    return np.concatenate(tasks)
