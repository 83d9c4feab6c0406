"""Elementwise activations on a GPU: see reference.py for what is computed, activation.cu for how. Never run on one yet.

A function without a name is computed by its own three callables, on the device's arrays.
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
    """What a kernel is told: how many numbers a task has, and which function."""
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
    launch.elements(
        "activation", "activation_r_backward", [rdx], [dy, rdy, x, rx], *numbers(rdx, function)
    )
