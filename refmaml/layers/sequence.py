"""The four passes of layers in a row, for layers that consist of others.

They are the passes of network.py, with one difference: a sequence may be anywhere in a
net, or have no layers or no parameters.

w, dw, rw, rdw  a dict of arrays for each layer
saved, rsaved   what each layer saved
need_dx=False   only parameters need adjoints: no layer before the first one with
                parameters computes anything, and None is returned
rx=None         an input without a tangent; a tangent begins at the first layer with
                parameters
"""

from typing import Any

from refmaml.layers.layer import Array


class NoTangent:
    """It replaces what r_forward saves, where input and output have no tangent."""


def first_with_parameters(layers) -> int:
    """The index of the first layer with parameters; len(layers) if none has any."""
    return next((i for i, layer in enumerate(layers) if layer.shapes()), len(layers))


def output_shape(layers, shape: tuple, name: str) -> tuple:
    """The shape of the outputs for one input of `shape`.

    name  of the sequence, for errors
    Raises ArgumentError, naming the layer, where a layer cannot take its input.
    """
    for i, layer in enumerate(layers):
        try:
            shape = layer.output_shape(shape)
        except ValueError as error:
            raise type(error)(f"{name}.{i}: {error}") from None
    return tuple(shape)


def forward(k, layers, w, x) -> tuple[Array, list]:
    """(y, saved)."""
    saved = []
    for layer, w_i in zip(layers, w, strict=True):
        x, kept = layer.forward(k, w_i, x)
        saved.append(kept)
    return x, saved


def backward(k, layers, dw, w, saved, dy, need_dx) -> tuple[Array, list]:
    """(dx, the adjoint dy of each layer's output); fills dw."""
    dys: list[Any] = [None] * len(layers)
    last = 0 if need_dx else first_with_parameters(layers)
    for i in range(len(layers) - 1, last - 1, -1):
        dys[i] = dy
        dy = layers[i].backward(k, dw[i], w[i], saved[i], dy, need_dx=need_dx or i > last)
    return (dy if need_dx else None), dys


def r_forward(k, layers, w, rw, saved, rx) -> tuple[Array, list]:
    """(ry, rsaved): R{y} along (rw, rx); None where nothing has a tangent."""
    rsaved: list[Any] = []
    for layer, w_i, rw_i, saved_i in zip(layers, w, rw, saved, strict=True):
        kept: Any = NoTangent
        if rx is not None or layer.shapes():
            rx, kept = layer.r_forward(k, w_i, rw_i, saved_i, rx)
        rsaved.append(kept)
    return rx, rsaved


def r_backward(k, layers, rdw, w, rw, saved, rsaved, dys, rdy, need_dx) -> Array:
    """rdx; fills rdw. dys: the adjoints of the layers' outputs, from `backward`."""
    last = 0 if need_dx else first_with_parameters(layers)
    for i in range(len(layers) - 1, last - 1, -1):
        need = need_dx or i > last
        if rsaved[i] is NoTangent:  # its derivative is constant along the direction
            rdy = layers[i].backward(k, rdw[i], w[i], saved[i], rdy, need_dx=need)
        else:
            rdy = layers[i].r_backward(
                k, rdw[i], w[i], rw[i], saved[i], rsaved[i], dys[i], rdy, need_dx=need
            )
    return rdy if need_dx else None
