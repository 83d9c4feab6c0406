"""Forward formulas of layers and losses for one task, shared by PyTorch and JAX.

They use operations that torch and jax.numpy spell alike. Only convolution and pooling
come from each framework. torch_autodiff.py and jax_autodiff.py differentiate them.
"""

from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from refmaml import layers
from refmaml.autodiff import activation_formulas, loss_formulas
from refmaml.errors import expect
from refmaml.layers.extents import pair
from refmaml.layers.layer import places
from refmaml.layers.walk import all_layers
from refmaml.methods.inner_loop_adjoint import step_sizes


class Framework(NamedTuple):
    """A framework's NumPy-like namespace xp, and its windows over images (N, C, H, W).

    conv2d(x, w, stride, padding, dilation, groups)
        padding ((top, bottom), (left, right)); dilation (dH, dW)
    max_pool2d(x, window, stride), avg_pool2d(x, window, stride)
    erf(x), constant(numbers, like): an array with the precision and the place of `like`
    """

    xp: Any
    conv2d: Any
    max_pool2d: Any
    avg_pool2d: Any
    erf: Any
    constant: Any


# ---- formulas: framework f, a layer, parameters w, one task's input x (N, ...) ----


def linear(f, layer, w, x):
    y = x @ w["weight"].T
    return y + w["bias"] if layer.bias else y


def cosine_linear(f, layer, w, x):
    def unit(a):
        return a * ((a * a).sum(axis=-1, keepdims=True) + layer.eps) ** -0.5

    scale = w["scale"] if layer.learned_scale else layer.scale
    return scale * (unit(x) @ unit(w["weight"]).T)


def conv2d(f, layer, w, x):
    _, stride, padding, _ = layer.geometry(tuple(x.shape[2:]))
    dilation = pair(layer.dilation, "dilation")
    y = f.conv2d(x, w["weight"], stride, padding, dilation, layer.groups)
    return y + w["bias"].reshape(-1, 1, 1) if layer.bias else y


def standardize(x, axes, eps):
    """(x - mean) / sqrt(variance + eps), mean and biased variance over `axes`.

    Written in primitives: every derivative of it is right in every framework.
    """
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred * ((centred * centred).mean(axis=axes, keepdims=True) + eps) ** -0.5


def batch_norm2d(f, layer, w, x):
    y = standardize(x.reshape(*x.shape[:2], -1), (0, 2), layer.eps)
    y = y * w["weight"].reshape(-1, 1) if layer.gamma else y
    y = y + w["bias"].reshape(-1, 1) if layer.beta else y
    return y.reshape(x.shape)


def eval_batch_norm2d(f, layer, w, x):
    def column(values):
        return f.xp.asarray(values, dtype=x.dtype).reshape(-1, 1)

    y = x.reshape(*x.shape[:2], -1) - column(layer.running_mean)
    y = y * (column(layer.running_var) + layer.eps) ** -0.5
    y = y * w["weight"].reshape(-1, 1) if layer.gamma else y
    y = y + w["bias"].reshape(-1, 1) if layer.beta else y
    return y.reshape(x.shape)


def context(f, layer, w, x):
    c = w["context"].reshape(-1, *(1 for _ in x.shape[2:]))
    return f.xp.concatenate([x, f.xp.broadcast_to(c, (len(x), layer.size, *x.shape[2:]))], axis=1)


def film(f, layer, w, x):
    both = w["weight"] @ w["context"] + w["bias"]
    gamma, beta = both.reshape(2, -1, *(1 for _ in x.shape[2:]))
    return gamma * x + beta


def group_norm(f, layer, w, x, groups):
    y = standardize(x.reshape(len(x), groups, -1), (2,), layer.eps).reshape(*x.shape[:2], -1)
    y = y * w["weight"].reshape(-1, 1) + w["bias"].reshape(-1, 1) if layer.affine else y
    return y.reshape(x.shape)


def layer_norm(f, layer, w, x):
    axes = tuple(range(x.ndim - len(layer.normalized_shape), x.ndim))
    y = standardize(x, axes, layer.eps)
    y = y * w["weight"] if "weight" in w else y
    return y + w["bias"] if "bias" in w else y


FORWARD = {
    layers.Conv2d: conv2d,
    layers.Linear: linear,
    layers.CosineLinear: cosine_linear,
    layers.BatchNorm2d: batch_norm2d,
    layers.EvalBatchNorm2d: eval_batch_norm2d,
    layers.ReLU: lambda f, layer, w, x: f.xp.where(x > 0, x, 0.0),
    layers.LeakyReLU: lambda f, layer, w, x: f.xp.where(x > 0, x, layer.negative_slope * x),
    layers.Tanh: lambda f, layer, w, x: f.xp.tanh(x),
    layers.Softplus: lambda f, layer, w, x: f.xp.logaddexp(x, f.xp.zeros_like(x)),
    layers.MaxPool2d: lambda f, layer, w, x: f.max_pool2d(x, *layer.geometry()),
    layers.AvgPool2d: lambda f, layer, w, x: f.avg_pool2d(x, *layer.geometry()),
    layers.SpatialMean: lambda f, layer, w, x: x.mean(axis=(2, 3)),
    layers.Flatten: lambda f, layer, w, x: x.reshape(len(x), -1),
    layers.Context: context,
    layers.FiLM: film,
    layers.GroupNorm: lambda f, layer, w, x: group_norm(f, layer, w, x, layer.num_groups),
    layers.InstanceNorm2d: lambda f, layer, w, x: group_norm(f, layer, w, x, layer.num_features),
    layers.LayerNorm: layer_norm,
    **activation_formulas.FORWARD,
}


def cross_entropy(f, loss, z, labels):
    N, C = z.shape
    shifted = z - f.xp.amax(z, axis=1, keepdims=True)
    log_p = shifted - f.xp.log(f.xp.exp(shifted).sum(axis=1, keepdims=True))
    scale = {"mean": 1 / N, "sum": 1, "sum/K": C / N}[loss.reduction]
    return -scale * log_p[f.xp.arange(N), labels].sum()


def squared_error(f, loss, z, targets):
    N, D = z.shape
    scale = {"mean": 1 / (N * D), "sum": 1, "sum/K": 1 / N}[loss.reduction]
    return loss.factor * scale * ((z - targets) ** 2).sum()


LOSSES = {layers.CrossEntropy: cross_entropy, layers.MSE: squared_error, **loss_formulas.LOSSES}


def task_loss(f, net, phi, x, y):
    """L(phi; x, y) of one task: phi (P,), x (N, ...), y (N,) or (N, D), arrays of f."""
    return named_loss(f, net, net.named(phi), x, y, FORWARD, LOSSES)


def named_loss(f, net, parameters, x, y, forward, losses):
    """L of one task, with parameters by name.

    forward, losses  {class of layer or loss: its formula}
    """
    z = named_outputs(f, net.named_layers, parameters, x, forward)
    return losses[type(net.loss_function)](f, net.loss_function, z, y)


def named_outputs(f, sequence, parameters, x, forward, prefix=""):
    """The outputs of one task. prefix: in front of "0.weight" in parameters.

    A Residual is the sum of its two parts; so it needs no formula in `forward`.
    """
    for i, layer in places(sequence):
        if isinstance(layer, layers.Residual):
            branch, shortcut = (
                named_outputs(f, part, parameters, x, forward, f"{prefix}{i}.{name}.")
                for name, part in layer.parts.items()
            )
            x = branch + shortcut
        else:
            w = {name: parameters[f"{prefix}{i}.{name}"] for name in layer.shapes()}
            x = forward[type(layer)](f, layer, w, x)
    return x


# ---- arguments of both oracles ----


def mean_over_tasks(net, task_vector, *arrays):
    """Mean over tasks of task_vector(*arrays of one task) (P,).

    arrays  (T, N, ...); they are converted to float64 or int64
    Raises ArgumentError for a layer or loss that has no formula here.
    """
    expect_formulas(net)
    arrays = [np.array(a, np.float64 if a.dtype.kind == "f" else np.int64) for a in arrays]
    return np.mean([np.asarray(task_vector(*task)) for task in zip(*arrays, strict=True)], axis=0)


def expect_formulas(net):
    """Raise ArgumentError for a layer or loss that has no formula here."""
    known_layers = {**FORWARD, layers.Residual: named_outputs}
    given = [(layer, known_layers) for layer in all_layers(net.layers)]
    for item, known in [*given, (net.loss_function, LOSSES)]:
        names = ", ".join(c.__name__ for c in known)
        expect(
            type(item) in known,
            "net",
            f"one of {names} where it has {type(item).__name__}",
            repr(item),
        )


def inner_rates(net, inner_lr, adapts, frozen):
    """A (P,): inner_lr for parameters that take inner steps, 0 for all others."""
    return step_sizes(net, inner_lr, adapts, frozen, np.float64)


def why_not(module):
    """None if `module` can be imported, otherwise the reason in one line."""
    try:
        import_module(module)
    # OSError: a shared library that does not load.
    except (ImportError, OSError) as error:
        return f"{module} cannot be imported ({error}); it comes with pip install refmaml[{module}]"
    return None
