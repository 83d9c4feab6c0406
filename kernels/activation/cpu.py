"""Elementwise activations on a CPU: see reference.py. Arrays come as one line of numbers; threads take blocks of it.

The functions are those of functions.py that have a name; any other Elementwise goes to the reference, which takes them all.
"""

import math

from numba import prange

from refmaml.kernels.activation import reference
from refmaml.kernels.activation.functions import LEAKY, NUMBERS, TANH
from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = [
    "activation_forward",
    "activation_backward",
    "activation_r_forward",
    "activation_r_backward",
]

BLOCK = 8192


@inner()
def sigmoid(x):
    """1 / (1 + e^-x), written with the exponential that does not overflow."""
    e = math.exp(-x if x > 0 else x)
    return (1 if x > 0 else e) / (1 + e)


@inner()
def smooth_f(x, kind):
    if kind == TANH:
        return math.tanh(x)
    return (x if x > 0 else 0) + math.log1p(math.exp(-abs(x)))


@inner()
def smooth_df(x, kind):
    if kind == TANH:
        return 1 - math.tanh(x) ** 2
    return sigmoid(x)


@inner()
def smooth_ddf(x, kind):
    if kind == TANH:
        return -2 * math.tanh(x) * (1 - math.tanh(x) ** 2)
    return sigmoid(x) * sigmoid(-x)


@inner()
def forward_block(y, x, kind, slope):
    zero = y.dtype.type(0)
    if kind != LEAKY:
        for i in range(len(x)):
            y[i] = smooth_f(x[i], kind)
    elif slope == 0:
        for i in range(len(x)):
            y[i] = zero if x[i] <= zero else x[i]
    else:
        for i in range(len(x)):
            y[i] = slope * x[i] if x[i] <= zero else x[i]


@inner()
def derivative_block(dx, dy, x, kind, slope):
    """f'(x) dy."""
    zero, one = dx.dtype.type(0), dx.dtype.type(1)
    if kind == LEAKY:
        for i in range(len(x)):
            dx[i] = (slope if x[i] <= zero else one) * dy[i]
    else:
        for i in range(len(x)):
            dx[i] = smooth_df(x[i], kind) * dy[i]


@compiled("line! line whole real")
def forward(y, x, kind, slope):
    for block in prange((len(x) + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, len(x)))
        forward_block(y[part], x[part], kind, slope)


@compiled("line! line line whole real")
def derivative(dx, dy, x, kind, slope):
    for block in prange((len(x) + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, len(x)))
        derivative_block(dx[part], dy[part], x[part], kind, slope)


@inner()
def r_derivative_block(rdx, dy, rdy, x, rx, kind, slope):
    """f'(x) rdy + f''(x) rx dy."""
    if kind == LEAKY:
        derivative_block(rdx, rdy, x, kind, slope)
    else:
        for i in range(len(x)):
            rdx[i] = smooth_df(x[i], kind) * rdy[i] + smooth_ddf(x[i], kind) * rx[i] * dy[i]


@compiled("line! line line line line whole real")
def r_derivative(rdx, dy, rdy, x, rx, kind, slope):
    for block in prange((len(x) + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, len(x)))
        r_derivative_block(rdx[part], dy[part], rdy[part], x[part], rx[part], kind, slope)


def activation_forward(y, x, function):
    """y = f(x)."""
    if function.name not in NUMBERS:
        return reference.activation_forward(y, x, function)
    forward(y, x, NUMBERS[function.name], function.slope)


def activation_backward(dx, dy, x, function):
    """dx = f'(x) dy."""
    if function.name not in NUMBERS:
        return reference.activation_backward(dx, dy, x, function)
    derivative(dx, dy, x, NUMBERS[function.name], function.slope)


def activation_r_forward(ry, rx, x, function):
    """ry = f'(x) rx."""
    activation_backward(ry, rx, x, function)


def activation_r_backward(rdx, dy, rdy, x, rx, function):
    """rdx = f'(x) rdy + f''(x) rx dy."""
    if function.name not in NUMBERS:
        return reference.activation_r_backward(rdx, dy, rdy, x, rx, function)
    r_derivative(rdx, dy, rdy, x, rx, NUMBERS[function.name], function.slope)
