"""The plan of a net: its layers as the operations of a chain, for kernel sets that run a whole chain as one kernel; or, for sets with
kernels that do several layers at once, as fewer layers that do the same.

Names and places of parameters stay what they are. A batch-norm, a piecewise linear activation and a max-pooling behind one another become
one operation. A net with a layer that has no words here has no plan, and runs layer by layer.
"""

from math import prod

from refmaml import layers
from refmaml.execution.fused_layers import Identity, NormActPool
from refmaml.kernels.activation.functions import LEAKY, NUMBERS
from refmaml.kernels.whole_net import operations as op

LOSSES = {layers.CrossEntropy: op.CROSS_ENTROPY, layers.MSE: op.MEAN_OF_SQUARES}


class Unplanned(Exception):
    """A layer that has no words here."""


def plan(net, shape):
    """(operations, loss) of a net on inputs of `shape`, or None."""
    operations, i = [], 0
    try:
        while i < len(net.layers):
            operation, count = (fused if isinstance(net.layers[i], layers.BatchNorm2d) else single)(
                net, i, shape
            )
            operations += [operation] if operation else []
            for layer in net.layers[i : i + count]:
                shape = layer.output_shape(shape)
            i += count
        return tuple(operations), LOSSES[type(net.loss_function)]
    except (Unplanned, KeyError):
        return None


def offsets(net, i, *names):
    """Where parameters of layer i begin in the flat vector; ABSENT for those it has not."""
    slices = (net.parameters.slices.get(f"{i}.{name}") for name in names)
    return [op.ABSENT if part is None else part.start for part in slices]


def single(net, i, shape):
    """(the operation of layer i, 1); None for a layer that changes nothing."""
    layer = net.layers[i]
    return WORDS.get(type(layer), refuse)(layer, shape, offsets(net, i, "weight", "bias")), 1


def refuse(layer, shape, places):
    raise Unplanned


def linear(layer, shape, places):
    return op.Matrix(layer.in_features, layer.out_features, *places)


def conv2d(layer, shape, places):
    kernel, stride, ((top, _), (left, _)), out = layer.geometry(tuple(shape[1:]))
    return op.Convolution(*shape, layer.out_channels, *out, kernel, stride, (top, left), *places)


def activation(layer, shape, places):
    return op.Activate(prod(shape), NUMBERS[layer.function.name], layer.function.slope)


def windows(kind):
    def operation(layer, shape, places):
        window, stride = (
            (shape[1:], shape[1:]) if isinstance(layer, layers.SpatialMean) else layer.geometry()
        )
        out = layer.output_shape(shape)
        return kind(*shape, *(out[1:] or (1, 1)), tuple(window), tuple(stride))

    return operation


def flatten(layer, shape, places):
    return None if prod(shape[1:]) == 1 else op.Flatten(*shape)


WORDS = {
    layers.Linear: linear,
    layers.Conv2d: conv2d,
    layers.Flatten: flatten,
    layers.MaxPool2d: windows(op.MaxPool),
    layers.AvgPool2d: windows(op.Average),
    layers.SpatialMean: windows(op.Average),
    **dict.fromkeys((layers.ReLU, layers.LeakyReLU, layers.Tanh, layers.Softplus), activation),
}


def fused(net, i, shape):
    """(batch-norm with what follows it, how many layers that is)."""
    (slope, window, count), norm = fusion(net.layers, i), net.layers[i]
    C, H, W = (*shape, 1, 1)[:3]
    gamma, beta = offsets(net, i, "weight", "bias")
    return op.NormActPool(
        C, H, W, H // window[0], W // window[1], norm.eps, gamma, beta, slope, window
    ), count


def fusion(chain, i):
    """What one operation can do from the batch-norm `chain[i]` on: (slope of the activation, pooling window, how many layers that is)."""
    slope, window, count = 1.0, (1, 1), 1
    if is_leaky_relu(chain[i + count : i + count + 1]):
        slope, count = chain[i + count].function.slope, count + 1
    if pools_side_by_side(chain[i + count : i + count + 1]):
        window, count = chain[i + count].geometry()[0], count + 1
    return slope, window, count


MOST_PLACES = 127  # of a window in a kernel that keeps winners as int8


def fused_layers(chain, kernels):
    """The layers of `chain` for a kernel set: where that has norm_act_pool_forward and its kin, a batch-norm does the work of an activation
    and a max-pooling behind it, and these are Identity. As many layers as before: all keep their places, and parameters their names."""
    chain = tuple(chain)
    if "norm_act_pool_forward" not in kernels.functions:
        return chain
    out = list(chain)
    for i, layer in enumerate(chain):
        if isinstance(layer, layers.BatchNorm2d):
            slope, window, count = fusion(chain, i)
            if prod(window) > MOST_PLACES:
                window, count = (1, 1), count - 1
            out[i : i + count] = [
                NormActPool(layer, slope, window),
                *map(Identity, chain[i + 1 : i + count]),
            ]
    return tuple(out)


def is_leaky_relu(following):
    """Whether an activation follows that is increasing, and linear but for a kink."""
    return any(
        NUMBERS.get(layer.function.name) == LEAKY and layer.function.slope >= 0
        for layer in following
        if isinstance(layer, layers.ReLU | layers.LeakyReLU)
    )


def pools_side_by_side(following):
    """Whether a max-pooling follows whose windows neither overlap nor leave gaps."""
    return any(
        window == stride
        for window, stride in (
            layer.geometry() for layer in following if isinstance(layer, layers.MaxPool2d)
        )
    )
