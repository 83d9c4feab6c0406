"""Elementwise activations on a GPU, by the kernels of activation.cu.

A function without a name is computed by its own three callables, on the device's
arrays. Not run on a GPU yet.
"""

from refmaml.kernels.activation import reference
from refmaml.kernels.activation.functions import NUMBERS

__all__ = [
    "activation_forward",
    "activation_backward",
    "activation_r_forward",
    "activation_r_backward",
]


def numbers(a, function):
    """The integers and reals that every kernel takes."""
    return a[:1].size, NUMBERS[function.name], float(function.slope)


def activation_forward(launch, y, x, function):
    """y = f(x)."""
    if function.name not in NUMBERS:
        return reference.activation_forward(y, x, function)
    launch.elements("activation", "activation_forward", [y], [x], *numbers(y, function))


def activation_backward(launch, dx, dy, x, function):
    """dx = f'(x) dy."""
    if function.name not in NUMBERS:
        return reference.activation_backward(dx, dy, x, function)
    launch.elements("activation", "activation_backward", [dx], [dy, x], *numbers(dx, function))


def activation_r_forward(launch, ry, rx, x, function):
    """ry = f'(x) rx."""
    activation_backward(launch, ry, rx, x, function)


def activation_r_backward(launch, rdx, dy, rdy, x, rx, function):
    """rdx = f'(x) rdy + f''(x) rx dy."""
    if function.name not in NUMBERS:
        return reference.activation_r_backward(rdx, dy, rdy, x, rx, function)
    inputs = [dy, rdy, x, rx]
    launch.elements("activation", "activation_r_backward", [rdx], inputs, *numbers(rdx, function))
