"""Networks in JAX, written for speed under XLA's CPU compiler.

Images have their channels last, and a convolution is one product with the matrix of
patches. lax.conv_general_dilated has no fast second derivative on a CPU: on the strided
net the formulas here are 10 times faster under lax.map and 5 times faster under vmap.
lax.reduce_window has the same fault, so pooling is by reshaping. That requires windows
side by side (stride = window), as all nets of the bench have.

A maximum is taken by comparison, never by x.max or jnp.maximum. The derivative of those
asks which x equals the maximum, and XLA may compute x a second time in another fused
loop with another rounding, so that no x equals it. On the max-pool net the error is 0.8
in float32, and NaN in float64.
"""

from functools import partial, reduce

from refmaml import layers
from refmaml.autodiff import formulas
from refmaml.autodiff.jax_autodiff import framework
from refmaml.errors import expect
from refmaml.layers.extents import pair
from refmaml.layers.walk import all_layers


def make_loss(net, convolution):
    """A function of (parameters by name, x (N, ...), y): the loss of one task.

    convolution  the formula for layers.Conv2d: conv2d or library_conv2d
    Raises ArgumentError for a layer whose formula has the channels of images first.
    """
    for layer in all_layers(net.layers):
        wanted = "layers with a formula for images whose channels are last"
        expect(type(layer) not in CHANNELS_FIRST, "net", wanted, partial(repr, layer))
    f, forward = framework(), formulas.FORWARD | FAST_LAYERS | {layers.Conv2d: convolution}

    def loss(parameters, x, y):
        return formulas.named_loss(
            f, net, parameters, channels_last(x), y, forward, formulas.LOSSES
        )

    return loss


def channels_last(x):
    """(N, C, H, W) -> (N, H, W, C)."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


# ---- formulas: framework f, a layer, its parameters w, input x (N, H, W, C) ----


def conv2d(f, layer, w, x):
    """The matrix of patches (N Ho Wo, kH kW C) times the filters (kH kW C, O).

    With groups: XLA's own convolution.
    """
    if layer.groups > 1:
        return library_conv2d(f, layer, w, x)
    dH, dW = pair(layer.dilation, "dilation")
    (kH, kW), (sH, sW), padding, (Ho, Wo) = layer.geometry(tuple(x.shape[1:3]))
    x = f.xp.pad(x, ((0, 0), *padding, (0, 0)))
    patches = f.xp.concatenate(
        [
            x[:, p : p + sH * (Ho - 1) + 1 : sH, q : q + sW * (Wo - 1) + 1 : sW]
            for p in range(0, dH * kH, dH)
            for q in range(0, dW * kW, dW)
        ],
        -1,
    )
    filters = w["weight"].transpose(2, 3, 1, 0)
    y = patches.reshape(-1, patches.shape[-1]) @ filters.reshape(patches.shape[-1], -1)
    return with_bias(layer, w, y.reshape(len(x), Ho, Wo, -1))


def library_conv2d(f, layer, w, x):
    """XLA's own convolution: cuDNN's on a GPU."""
    from jax import lax

    _, stride, padding, _ = layer.geometry(tuple(x.shape[1:3]))
    y = lax.conv_general_dilated(
        x,
        w["weight"],
        stride,
        padding,
        rhs_dilation=pair(layer.dilation, "dilation"),
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=layer.groups,
    )
    return with_bias(layer, w, y)


def with_bias(layer, w, y):
    return y + w["bias"] if layer.bias else y


def batch_norm2d(f, layer, w, x):
    y = formulas.standardize(x, (0, 1, 2), layer.eps)
    y = y * w["weight"] if layer.gamma else y
    return y + w["bias"] if layer.beta else y


def windows(layer, x):
    """(N, Ho, kH, Wo, kW, C), without rows and columns that fill no whole window."""
    (kH, kW), _ = layer.geometry()
    Ho, Wo = x.shape[1] // kH, x.shape[2] // kW
    return x[:, : Ho * kH, : Wo * kW].reshape(len(x), Ho, kH, Wo, kW, -1)


def max_pool2d(f, layer, w, x):
    x = windows(layer, x)
    x = reduce(partial(larger, f), [x[:, :, p] for p in range(x.shape[2])])
    return reduce(partial(larger, f), [x[:, :, :, q] for q in range(x.shape[3])])


def larger(f, a, b):
    """The elementwise maximum; a where they are equal."""
    return f.xp.where(b > a, b, a)


def flatten(f, layer, w, x):
    """The order of refmaml's Flatten: channels first."""
    x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    return x.reshape(len(x), -1)


# Their formulas in formulas.py read axis 1 of an image as its channels.
CHANNELS_FIRST = {
    layers.Context,
    layers.DropBlock2d,
    layers.EvalBatchNorm2d,
    layers.FiLM,
    layers.GroupNorm,
    layers.InstanceNorm2d,
    layers.LayerNorm,
    layers.LogSoftmax,
    layers.Softmax,
}
FAST_LAYERS = {
    layers.BatchNorm2d: batch_norm2d,
    layers.MaxPool2d: max_pool2d,
    layers.AvgPool2d: lambda f, layer, w, x: windows(layer, x).mean(axis=(2, 4)),
    layers.SpatialMean: lambda f, layer, w, x: x.mean(axis=(1, 2)),
    layers.Flatten: flatten,
}
