"""Elementwise activations in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.

A function is selected by its number (functions.py) and its slope. One without a name is
computed by the reference.
"""

import math

from numba import cuda

from refmaml.kernels.activation import reference
from refmaml.kernels.activation.functions import (
    ELU,
    GELU,
    LEAKY,
    NUMBERS,
    SIGMOID,
    SILU,
    SOFTPLUS,
    TANH,
)
from refmaml.kernels.activation.smooth_functions import (
    DENSITY_AT_0,
    SQRT_HALF,
    TANH_CUBE,
    TANH_SLOPE,
)
from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = [
    "activation_forward",
    "activation_backward",
    "activation_r_forward",
    "activation_r_backward",
]


@cuda.jit(device=True)
def sigmoid(x):
    """1 / (1 + e^-x), by the exponential that does not overflow."""
    e = math.exp(-x if x > 0 else x)
    return (1 if x > 0 else e) / (1 + e)


@cuda.jit(device=True)
def gate(x, kind):
    """v of a gated function x sigmoid(v(x)); below, v' and v''."""
    return x if kind == SILU else TANH_SLOPE * (x + TANH_CUBE * x**3)


@cuda.jit(device=True)
def d_gate(x, kind):
    return 1.0 if kind == SILU else TANH_SLOPE * (1 + 3 * TANH_CUBE * x**2)


@cuda.jit(device=True)
def dd_gate(x, kind):
    return 0.0 if kind == SILU else 6 * TANH_SLOPE * TANH_CUBE * x


@cuda.jit(device=True)
def normal_cdf(x):
    """The distribution function of N(0, 1)."""
    return 0.5 * math.erfc(-SQRT_HALF * x)


@cuda.jit(device=True)
def normal_density(x):
    """The density of N(0, 1)."""
    return DENSITY_AT_0 * math.exp(-0.5 * x**2)


@cuda.jit(device=True)
def f(x, kind, slope):
    if kind == LEAKY:
        return x if not x <= 0 else (slope * x if slope != 0 else 0.0)
    if kind == TANH:
        return math.tanh(x)
    if kind == SOFTPLUS:
        return (0.0 if x <= 0 else x) + math.log1p(math.exp(-x if x > 0 else x))
    if kind == SIGMOID:
        return sigmoid(x)
    if kind == ELU:
        return slope * math.expm1(x) if x <= 0 else x
    if kind == GELU:
        return x * normal_cdf(x)
    return x * sigmoid(gate(x, kind))


@cuda.jit(device=True)
def df(x, kind, slope):
    if kind == LEAKY:
        return slope if x <= 0 else 1.0
    if kind == TANH:
        return 1 - math.tanh(x) ** 2
    if kind == SOFTPLUS:
        return sigmoid(x)
    if kind == SIGMOID:
        return sigmoid(x) * sigmoid(-x)
    if kind == ELU:
        return slope * math.exp(x) if x <= 0 else 1.0
    if kind == GELU:
        return normal_cdf(x) + x * normal_density(x)
    v = gate(x, kind)
    return sigmoid(v) + x * (sigmoid(v) * sigmoid(-v) * d_gate(x, kind))


@cuda.jit(device=True)
def ddf(x, kind, slope):
    if kind == TANH:
        return -2 * math.tanh(x) * (1 - math.tanh(x) ** 2)
    if kind == SOFTPLUS:
        return sigmoid(x) * sigmoid(-x)
    if kind == SIGMOID:
        return sigmoid(x) * sigmoid(-x) * (sigmoid(-x) - sigmoid(x))
    if kind == ELU:
        return slope * math.exp(x) if x <= 0 else 0.0
    if kind == GELU:
        return (2 - x**2) * normal_density(x)
    v, dv = gate(x, kind), d_gate(x, kind)
    s, opposite = sigmoid(v), sigmoid(-v)
    return s * opposite * (2 * dv + x * (dd_gate(x, kind) + (opposite - s) * dv**2))


@cuda.jit
def forward(y, x, kind, slope):
    """y = f(x), a thread for each number; arrays are (T, P)."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < x.shape[1]:
        y[t, i] = f(x[t, i], kind, slope)


@cuda.jit
def backward(dx, dy, x, kind, slope):
    """dx = f'(x) dy."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < x.shape[1]:
        dx[t, i] = df(x[t, i], kind, slope) * dy[t, i]


@cuda.jit
def r_backward(rdx, dy, rdy, x, rx, kind, slope):
    """rdx = f'(x) rdy + f''(x) rx dy; the second term is 0 for a piecewise linear f."""
    t, i = cuda.blockIdx.y, cuda.grid(1)
    if i < x.shape[1]:
        rdx[t, i] = df(x[t, i], kind, slope) * rdy[t, i]
        if kind != LEAKY:
            rdx[t, i] += ddf(x[t, i], kind, slope) * rx[t, i] * dy[t, i]


def on_rows(kernel, out, inputs, function):
    """The kernel on arrays reshaped to (T, P)."""
    rows = out.reshape(len(out), -1)
    for_each(
        kernel,
        rows.shape[1],
        [rows],
        [a.reshape(len(a), -1) for a in inputs],
        NUMBERS[function.name],
        function.slope,
    )
    out[...] = rows.reshape(out.shape)


def activation_forward(y, x, function):
    """y = f(x)."""
    if function.name not in NUMBERS:
        return reference.activation_forward(y, x, function)
    on_rows(forward, y, [x], function)


def activation_backward(dx, dy, x, function):
    """dx = f'(x) dy."""
    if function.name not in NUMBERS:
        return reference.activation_backward(dx, dy, x, function)
    on_rows(backward, dx, [dy, x], function)


def activation_r_forward(ry, rx, x, function):
    """ry = f'(x) rx."""
    activation_backward(ry, rx, x, function)


def activation_r_backward(rdx, dy, rdy, x, rx, function):
    """rdx = f'(x) rdy + f''(x) rx dy."""
    if function.name not in NUMBERS:
        return reference.activation_r_backward(rdx, dy, rdy, x, rx, function)
    on_rows(r_backward, rdx, [dy, rdy, x, rx], function)
