"""Elementwise activations on a CPU: the formulas are in reference.py.

Arrays are flat; threads take blocks of BLOCK elements. Functions are those of
functions.py that have a name. Any other Elementwise is computed by the reference.
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
    """1 / (1 + e^-x), by the exponential that does not overflow."""
    e = math.exp(-x if x > 0 else x)
    return (1 if x > 0 else e) / (1 + e)


@inner()
def smooth_f(x, kind):
    """tanh or softplus; below, their first and second derivative."""
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
    """y = f(x)."""
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
    """dx = f'(x) dy."""
    zero, one = dx.dtype.type(0), dx.dtype.type(1)
    if kind == LEAKY:
        for i in range(len(x)):
            dx[i] = (slope if x[i] <= zero else one) * dy[i]
    else:
        for i in range(len(x)):
            dx[i] = smooth_df(x[i], kind) * dy[i]


@compiled("flat! flat integer real")
def forward(y, x, kind, slope):
    for block in prange((len(x) + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, len(x)))
        forward_block(y[part], x[part], kind, slope)


@compiled("flat! flat flat integer real")
def derivative(dx, dy, x, kind, slope):
    for block in prange((len(x) + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, len(x)))
        derivative_block(dx[part], dy[part], x[part], kind, slope)


@inner()
def r_derivative_block(rdx, dy, rdy, x, rx, kind, slope):
    """rdx = f'(x) rdy + f''(x) rx dy."""
    if kind == LEAKY:
        derivative_block(rdx, rdy, x, kind, slope)
    else:
        for i in range(len(x)):
            rdx[i] = smooth_df(x[i], kind) * rdy[i] + smooth_ddf(x[i], kind) * rx[i] * dy[i]


@compiled("flat! flat flat flat flat integer real")
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
