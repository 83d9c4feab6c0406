"""Elementwise activations on a CPU: the formulas are in reference.py.

Arrays are flat; threads take blocks of BLOCK elements. Functions are those with a name
in functions.py. Any other Elementwise is computed by the reference.
"""

from numba import prange

from refmaml.kernels.activation import reference
from refmaml.kernels.activation.functions import LEAKY, NUMBERS
from refmaml.kernels.activation.scalar_functions import smooth_ddf, smooth_df, smooth_f
from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.external_functions import external

__all__ = [
    "activation_forward",
    "activation_backward",
    "activation_r_forward",
    "activation_r_backward",
]

BLOCK = 8192


@external("F[::1], F[::1], int64, F", on_demand=True, allocates=False)
def forward_block(y, x, kind, slope):
    """y = f(x)."""
    zero = y.dtype.type(0)
    if kind != LEAKY:
        for i in range(len(x)):
            y[i] = smooth_f(x[i], kind, slope)
    elif slope == 0:
        for i in range(len(x)):
            y[i] = zero if x[i] <= zero else x[i]
    else:
        for i in range(len(x)):
            y[i] = slope * x[i] if x[i] <= zero else x[i]


@external("F[::1], F[::1], F[::1], int64, F", on_demand=True, allocates=False)
def derivative_block(dx, dy, x, kind, slope):
    """dx = f'(x) dy."""
    zero, one = dx.dtype.type(0), dx.dtype.type(1)
    if kind == LEAKY:
        for i in range(len(x)):
            dx[i] = (slope if x[i] <= zero else one) * dy[i]
    else:
        for i in range(len(x)):
            dx[i] = smooth_df(x[i], kind, slope) * dy[i]


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


@external("F[::1], F[::1], F[::1], F[::1], F[::1], int64, F", on_demand=True, allocates=False)
def r_derivative_block(rdx, dy, rdy, x, rx, kind, slope):
    """rdx = f'(x) rdy + f''(x) rx dy."""
    if kind == LEAKY:
        zero, one = rdx.dtype.type(0), rdx.dtype.type(1)
        for i in range(len(x)):
            rdx[i] = (slope if x[i] <= zero else one) * rdy[i]
    else:
        for i in range(len(x)):
            ddf = smooth_ddf(x[i], kind, slope)
            rdx[i] = smooth_df(x[i], kind, slope) * rdy[i] + ddf * rx[i] * dy[i]


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
