"""Which layers of a net are computed as one operation.

`plan` describes a whole net as a list of operations, for kernel sets that run a whole
net as one kernel. `fused_layers` replaces layers by fused ones, for kernel sets that
have kernels for several layers at once. In both a batch-norm, a piecewise linear
activation and a max-pooling in sequence become one operation. Parameters keep their
names and places.
"""

from math import prod

from refmaml import layers
from refmaml.execution.fused_layers import Identity, NormActPool
from refmaml.kernels.activation.functions import LEAKY, NUMBERS
from refmaml.kernels.whole_net import operations as op
from refmaml.layers.extents import pair

LOSSES = {layers.CrossEntropy: op.CROSS_ENTROPY, layers.MSE: op.MEAN_OF_SQUARES}
MAX_WINDOW = 127  # places of a window in kernels that store the winning place as int8


class NoOperation(Exception):
    """No operation does what a layer does."""


def plan(net, shape):
    """(operations, loss) of a net on inputs of `shape`.

    None for a net with a layer or a loss that no operation computes: such a net runs
    layer by layer.
    """
    try:
        operations = sequence(net.parameters.slices, net.named_layers, shape)
        return operations, LOSSES[type(net.loss_function)]
    except (NoOperation, KeyError):
        return None


def sequence(slices, named, shape):
    """The operations of layers in order, {name: layer}, from their input shape.

    slices  {name: slice} of the net's parameters in the flat vector
    """
    names, in_order, operations, i = list(named), list(named.values()), [], 0
    while i < len(in_order):
        layer = in_order[i]
        if isinstance(layer, layers.Residual):
            operation, count = residual(slices, names[i], layer, shape), 1
        elif isinstance(layer, layers.BatchNorm2d):
            operation, count = batch_norm(offsets(slices, names[i]), in_order, i, shape)
        elif type(layer) in NORMS:
            operation, count = group_norm(offsets(slices, names[i]), in_order, i, shape)
        else:
            make = OPERATION_OF.get(type(layer), refuse)
            operation, count = make(layer, shape, offsets(slices, names[i])), 1
        operations += [operation] if operation else []
        for passed in in_order[i : i + count]:
            shape = passed.output_shape(shape)
        i += count
    return tuple(operations)


def residual(slices, name, layer, shape):
    """The operation of a Residual."""
    branch, shortcut = (
        sequence(slices, {f"{name}.{part}.{i}": inner for i, inner in enumerate(inside)}, shape)
        for part, inside in layer.parts.items()
    )
    return op.Residual(branch, shortcut, prod(shape), prod(layer.output_shape(shape)))


def offsets(slices, name):
    """Where a layer's weight and bias begin in the flat vector; ABSENT if missing."""
    found = (slices.get(f"{name}.{parameter}") for parameter in ("weight", "bias"))
    return [op.ABSENT if part is None else part.start for part in found]


# ---- the operation of one layer, from its input shape and parameters' offsets --------


def refuse(layer, shape, places):
    raise NoOperation


def linear(layer, shape, places):
    return op.Matrix(layer.in_features, layer.out_features, *places)


def conv2d(layer, shape, places):
    kernel, stride, ((top, _), (left, _)), out = layer.geometry(tuple(shape[1:]))
    extents, windows = (*shape, layer.out_channels, *out), (kernel, stride, (top, left))
    dilation = pair(layer.dilation, "dilation")
    return op.Convolution(*extents, *windows, *places, dilation, layer.groups)


def activation(layer, shape, places):
    return op.Activate(prod(shape), NUMBERS[layer.function.name], layer.function.slope)


def windows(kind):
    """The function for a pooling layer; `kind` is the operation."""

    def operation(layer, shape, places):
        whole = isinstance(layer, layers.SpatialMean)
        window, stride = (shape[1:], shape[1:]) if whole else layer.geometry()
        out = layer.output_shape(shape)
        return kind(*shape, *(out[1:] or (1, 1)), tuple(window), tuple(stride))

    return operation


def flatten(layer, shape, places):
    return None if prod(shape[1:]) == 1 else op.Flatten(*shape)


OPERATION_OF = {
    layers.Linear: linear,
    layers.Conv2d: conv2d,
    layers.Flatten: flatten,
    layers.MaxPool2d: windows(op.MaxPool),
    layers.AvgPool2d: windows(op.Average),
    layers.SpatialMean: windows(op.Average),
    **dict.fromkeys((layers.ReLU, layers.LeakyReLU, layers.Tanh, layers.Softplus), activation),
    **dict.fromkeys((layers.Sigmoid, layers.SiLU, layers.GELU, layers.ELU), activation),
}


# ---- a norm with the layers behind it ------------------------------------------------

NORMS = (layers.GroupNorm, layers.InstanceNorm2d, layers.LayerNorm)


def batch_norm(places, sequence, i, shape):
    """(one operation for batch-norm i and layers behind it, their number)."""
    (slope, window, count), norm = fusion(sequence, i), sequence[i]
    C, H, W = (*shape, 1, 1)[:3]
    out = H // window[0], W // window[1]
    return op.NormActPool(C, H, W, *out, norm.eps, *places, slope, window), count


def group_norm(places, sequence, i, shape):
    """(one operation for norm i and an activation behind it, their number).

    A LayerNorm over some of the dimensions only has no operation.
    """
    norm, (C, H, W) = sequence[i], (*shape, 1, 1)[:3]
    G, _, A = norm.extents()
    if isinstance(norm, layers.LayerNorm) and norm.normalized_shape != tuple(shape):
        raise NoOperation
    by_position = A > 1 and places[0] != op.ABSENT
    slope, following = 1.0, sequence[i + 1 : i + 2]
    if is_leaky_relu(following):
        slope = following[0].function.slope
    count = 1 + is_leaky_relu(following)
    return op.GroupNorm(C, H, W, G, norm.eps, *places, by_position, slope), count


def fusion(sequence, i):
    """(slope, window, count) of the operation that begins at batch-norm sequence[i].

    slope   of the activation behind it; 1 where there is none
    window  of the max-pooling behind that; (1, 1) where there is none
    count   the number of layers
    """
    slope, window, count = 1.0, (1, 1), 1
    if is_leaky_relu(sequence[i + count : i + count + 1]):
        slope, count = sequence[i + count].function.slope, count + 1
    if pools_side_by_side(sequence[i + count : i + count + 1]):
        window, count = sequence[i + count].geometry()[0], count + 1
    return slope, window, count


def fused_layers(sequence, kernels):
    """The layers for a kernel set, as many as before, so that all keep their places.

    Where the set has norm_act_pool kernels, a NormActPool replaces each batch-norm and
    does the work of an activation and a max-pooling behind it; an Identity replaces
    these. Inside a Residual as well.
    """
    sequence = tuple(sequence)
    if "norm_act_pool_forward" not in kernels.functions:
        return sequence
    out = list(sequence)
    for i, layer in enumerate(sequence):
        if isinstance(layer, layers.Residual):
            parts = {name: fused_layers(part, kernels) for name, part in layer.parts.items()}
            out[i] = layers.Residual(**parts)
        if isinstance(layer, layers.BatchNorm2d):
            slope, window, count = fusion(sequence, i)
            if prod(window) > MAX_WINDOW:
                window, count = (1, 1), count - 1
            replaced = map(Identity, sequence[i + 1 : i + count])
            out[i : i + count] = [NormActPool(layer, slope, window), *replaced]
    return tuple(out)


def is_leaky_relu(following):
    """Whether `following` is an increasing activation, linear but for a kink."""
    return any(
        NUMBERS.get(layer.function.name) == LEAKY and layer.function.slope >= 0
        for layer in following
        if isinstance(layer, layers.ReLU | layers.LeakyReLU)
    )


def pools_side_by_side(following):
    """Whether `following` is a max-pooling with windows side by side."""
    geometries = (layer.geometry() for layer in following if isinstance(layer, layers.MaxPool2d))
    return any(window == stride for window, stride in geometries)
