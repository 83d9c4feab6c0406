"""Inputs on which a hand-written layer is compared with refmaml's own.

All extents differ from each other, so that no axis can be taken for another unseen:
examples, channels, rows, columns; in Conv2d and pooling also kernels, strides and
paddings where `like` is a class. Of two images one is covered by the windows to its
last row of padding, the other is not."""

from inspect import isclass
from typing import NamedTuple

import numpy as np

from refmaml import kernels, layers
from refmaml.errors import ArgumentError, expect
from refmaml.layers.extents import explicit_padding, pair
from refmaml.layers.layer import Layer
from refmaml.layers.pooling import Windowed

EXAMPLES = (5, 4)  # of the cases, in turn: a factor N shows by its two values
PLAIN, TIES, NEAR_TIES = "plain", "ties", "near ties"
NEAREST = {"float64": 12, "float32": 4}  # digits: near ties are apart by 1e-2 ... 1e-12
GEOMETRIES = {
    layers.Conv2d: (
        layers.Conv2d(2, 3, (3, 2), stride=(2, 3), padding=((0, 1), (2, 1))),
        layers.Conv2d(3, 2, (2, 4), stride=(3, 1), padding=((1, 0), (1, 2))),
    ),
    layers.MaxPool2d: (layers.MaxPool2d((3, 2), (2, 1)), layers.MaxPool2d((2, 3), (3, 2))),
    layers.AvgPool2d: (layers.AvgPool2d((3, 2), (2, 1)), layers.AvgPool2d((2, 3), (3, 2))),
    layers.Linear: (layers.Linear(4, 3),),
    layers.BatchNorm2d: (layers.BatchNorm2d(3), layers.BatchNorm2d(2, eps=0.1)),
    layers.GroupNorm: (layers.GroupNorm(2, 6), layers.GroupNorm(3, 6, eps=0.1)),
    layers.InstanceNorm2d: (layers.InstanceNorm2d(3, affine=True),),
    layers.LayerNorm: (layers.LayerNorm((3, 4, 6)), layers.LayerNorm(6, eps=0.1)),
}


class LayerCase(NamedTuple):
    """One layer on one input; the arrays have no axis for tasks.

    kind     PLAIN; or TIES, NEAR_TIES: equal and nearly equal entries in a window
    x (N, ...), params and dy; rx, rparams and rdy: tangents of these
    y, truth, r_y, r_truth   refmaml's outputs: arrays, and {"x": dx, name: d_name}
    at_rdy   the truth for rdy in place of dy: r_truth without the tangents of the rest
    """

    name: str
    kind: str
    layer: object
    x: np.ndarray
    params: dict
    dy: np.ndarray
    rx: np.ndarray
    rparams: dict
    rdy: np.ndarray
    y: np.ndarray
    truth: dict
    r_y: np.ndarray
    r_truth: dict
    at_rdy: dict


def cases_of(like, input_shape, seed, precision):
    """The LayerCases of a layer, or of a class of layers. Raises ArgumentError."""
    chosen, rng, cases = layers_of(like), np.random.default_rng(seed), []
    for i, layer in enumerate(chosen):
        several = len(chosen) > 1
        for j, shape in enumerate(input_shapes(layer, input_shape)):
            name = f"{described(layer)}, " if several else ""
            name += "input " + " x ".join(map(str, shape))
            N = EXAMPLES[(i + j) % len(EXAMPLES)]
            for kind in kinds_of(layer):
                x = inputs(kind, layer, (N, *shape), rng, precision)
                title = name if kind == PLAIN else f"{name}, {kind}"
                cases.append(complete(title, kind, layer, x, rng, precision))
    return cases


def layers_of(like):
    """The layers that are compared. Raises ArgumentError for anything but layers."""
    wanted = "a layer of refmaml, such as rm.BatchNorm2d(3) or rm.Conv2d"
    if not isclass(like):
        expect(isinstance(like, Layer), "like", wanted, lambda: repr(like))
        return (like,)
    expect(issubclass(like, Layer), "like", wanted, lambda: like.__name__)
    if GEOMETRIES.get(like):
        return GEOMETRIES[like]
    try:
        return (like(),)
    except TypeError:
        raise ArgumentError(
            f"like: expected an instance, such as rm.{like.__name__}(...), got the class"
        ) from None


def described(layer):
    """A layer with its geometry, short."""
    geometry = ("num_groups", "kernel_size", "stride", "padding", "eps", "normalized_shape")
    parts = [f"{n}={getattr(layer, n)}" for n in geometry if hasattr(layer, n)]
    return " ".join([type(layer).__name__, *parts])


def kinds_of(layer):
    """The kinds of inputs that a layer needs."""
    if isinstance(layer, layers.MaxPool2d):
        return (PLAIN, TIES, NEAR_TIES)
    return (PLAIN, TIES) if isinstance(layer, layers.ReLU | layers.LeakyReLU) else (PLAIN,)


def input_shapes(layer, given):
    """Shapes of one example."""
    if given is not None:
        shape = tuple(given)
        layer.output_shape(shape)
        return (shape,)
    if isinstance(layer, layers.Conv2d):
        return [(layer.in_channels, *sides) for sides in conv_sides(layer)]
    if isinstance(layer, Windowed):
        window, stride = layer.geometry()
        none = ((0, 0), (0, 0))
        return [(2, *sides) for sides in sides_of(window, stride, none)]
    for shape in ((3, 4, 6), (6, 4, 3), (7,)):
        shape = tuple(shape)
        fitted = fit(layer, shape)
        if fitted is not None:
            return (fitted,)
    raise ArgumentError(
        f"input_shape: expected the shape of one input of {type(layer).__name__}, got None"
    )


def fit(layer, shape):
    """A shape with the layer's own number of channels; None where it does not fit."""
    for name in ("num_features", "num_channels", "in_features"):
        if hasattr(layer, name):
            shape = (getattr(layer, name), *shape[1:])
    if hasattr(layer, "in_features"):
        shape = shape[:1]
    if hasattr(layer, "normalized_shape"):
        own = layer.normalized_shape
        own = tuple(own) if isinstance(own, tuple | list) else (own,)
        shape = own if len(own) != 2 else (3, *own)
    try:
        layer.output_shape(shape)
    except ArgumentError:
        return None
    return distinct(shape)


def distinct(shape):
    """Images whose rows and columns are neither equal nor as many as the channels."""
    if len(shape) != 3:
        return shape
    C, H, W = shape
    H = H + 2 if H == C else H
    while W in (C, H):
        W += 1
    return (C, H, W)


def conv_sides(layer):
    """Image sides of a Conv2d."""
    kernel, stride = pair(layer.kernel_size, "kernel_size"), pair(layer.stride, "stride")
    dilation = pair(layer.dilation, "dilation")
    window = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if isinstance(layer.padding, str):
        return ((7, 10), (8, 11))
    return sides_of(window, stride, explicit_padding(layer.padding, window, stride, (9, 9)))


def sides_of(window, stride, padding):
    """Two pairs (H, W), H < W: covered by the windows exactly, and with a remainder."""
    exact = []
    for k, s, (before, after), count in zip(window, stride, padding, (3, 4), strict=True):
        least = max(k, 3)
        side = (count - 1) * s + k - before - after
        while side < least:
            side += s
        exact.append(side)
    while exact[1] <= exact[0]:
        exact[1] += stride[1]
    more = [side + max(s - 1, 1) for side, s in zip(exact, stride, strict=True)]
    while more[1] <= more[0]:
        more[1] += stride[1]
    return tuple(exact), tuple(more)


def inputs(kind, layer, shape, rng, precision):
    """x (N, ...)."""
    if kind == TIES:  # whole numbers, 0 among them
        return rng.integers(-1, 2, shape).astype(float)
    if kind == NEAR_TIES:
        return near_ties(shape, rng, precision)
    if isinstance(layer, layers.MaxPool2d):  # all numbers differ by a tenth at least
        return rng.permutation(np.arange(np.prod(shape))).reshape(shape) / 10.0
    return rng.standard_normal(shape) + 0.3  # a mean other than 0


def near_ties(shape, rng, precision):
    """Different numbers, each below 1 by 1e-2 ... 1e-12, so that windows almost tie."""
    n, most = int(np.prod(shape)), NEAREST[precision]
    x = np.zeros(0)
    while len(x) < n:
        digits = rng.integers(2, most + 1, n)
        x = np.union1d(x, rounded(1.0 - rng.uniform(1, 9, n) * 10.0**-digits, precision))
        most = max(most - 1, 2)  # few numbers lie that close to 1
    return rng.permutation(rng.permutation(x)[:n]).reshape(shape)


def complete(name, kind, layer, x, rng, precision):
    """The LayerCase of an input, with what refmaml computes."""
    k, shapes = kernels.reference(), layer.shapes()

    def drawn(shape):
        return rounded(rng.standard_normal((1, *shape)), precision)

    x = rounded(x, precision)[None]
    w, rw = {n: drawn(s) for n, s in shapes.items()}, {n: drawn(s) for n, s in shapes.items()}
    y, saved = layer.forward(k, w, x)
    rx, dy, rdy = drawn(x.shape[1:]), drawn(y.shape[1:]), drawn(y.shape[1:])

    def backward(adjoint):
        dw = {n: np.empty_like(a) for n, a in w.items()}
        return {"x": layer.backward(k, dw, w, saved, adjoint), **dw}

    ry, rsaved = layer.r_forward(k, w, rw, saved, rx)
    rdw = {n: np.empty_like(a) for n, a in w.items()}
    rdx = layer.r_backward(k, rdw, w, rw, saved, rsaved, dy, rdy)
    results = backward(dy), {"x": rdx, **rdw}, backward(rdy)
    w, rw, truth, r_truth, at_rdy = (
        {n: a[0] for n, a in named.items()} for named in (w, rw, *results)
    )
    return LayerCase(
        name, kind, layer, x[0], w, dy[0], rx[0], rw, rdy[0], y[0], truth, ry[0], r_truth, at_rdy
    )


def rounded(a, precision):
    """Numbers that the precision has, in float64."""
    return a.astype(precision).astype(float)
