"""A case's net in PyTorch and JAX: its loss, and the features that its head reads."""

from typing import Any, NamedTuple

from refmaml import layers
from refmaml.autodiff import formulas, jax_autodiff, torch_autodiff


class NetIn(NamedTuple):
    """loss(params, x, y) and features(params, x) of one task, params by name.

    Features are the outputs of all layers but the last.
    """

    loss: Any
    features: Any


def net_in(f, net, forward, losses):
    """The NetIn of a framework f with these formulas."""
    body = dict(list(net.named_layers.items())[:-1])

    def loss(params, x, y):
        return formulas.named_loss(f, net, params, x, y, forward, losses)

    def features(params, x):
        return formulas.named_outputs(f, body, params, x, forward)

    return NetIn(loss, features)


def net_in_torch(net):
    """The NetIn of PyTorch."""
    return net_in(torch_autodiff.framework(), net, formulas.FORWARD, formulas.LOSSES)


def net_in_jax(net):
    """The NetIn of JAX.

    Maxima are taken by comparisons. The derivative of a maximum compares each entry
    with the result, and XLA may compute the entry a second time with another rounding,
    so that no entry is equal."""
    from jax.lax import stop_gradient

    f = jax_autodiff.framework()

    def max_pool2d(f, layer, w, x):
        (kH, kW), (sH, sW) = layer.geometry()
        Ho, Wo = layer.output_shape(tuple(x.shape[1:]))[1:]
        best = None
        for p in range(kH):
            for q in range(kW):
                part = x[:, :, p : p + sH * (Ho - 1) + 1 : sH, q : q + sW * (Wo - 1) + 1 : sW]
                best = part if best is None else f.xp.where(part > best, part, best)
        return best

    def cross_entropy(f, loss, z, labels):
        largest = stop_gradient(z.max(axis=1, keepdims=True))  # the loss does not depend on it
        shifted = z - largest
        log_p = shifted - f.xp.log(f.xp.exp(shifted).sum(axis=1, keepdims=True))
        scale = loss.scale(*z.shape)
        return -scale * f.xp.take_along_axis(log_p, labels[:, None], axis=1).sum()

    forward = formulas.FORWARD | {layers.MaxPool2d: max_pool2d}
    losses = formulas.LOSSES | {layers.CrossEntropy: cross_entropy}
    return net_in(f, net, forward, losses)
