"""The smooth activations of one number, with two derivatives, for the CPU kernels.

The formulas are in functions.py and smooth_functions.py. kind is the number of the
function; slope is ELU's alpha.
"""

import math

from refmaml.kernels.activation.functions import ELU, GELU, SIGMOID, SILU, SOFTPLUS, TANH
from refmaml.kernels.activation.smooth_functions import (
    DENSITY_AT_0,
    SQRT_HALF,
    TANH_CUBE,
    TANH_SLOPE,
)
from refmaml.kernels.numba_runtime.inline_jit import inner


@inner()
def sigmoid(x):
    """1 / (1 + e^-x), by the exponential that does not overflow."""
    e = math.exp(-x if x > 0 else x)
    return (1 if x > 0 else e) / (1 + e)


@inner()
def gate(x, kind):
    """v of a gated function x sigmoid(v(x))."""
    return x if kind == SILU else TANH_SLOPE * (x + TANH_CUBE * x**3)


@inner()
def d_gate(x, kind):
    """v'."""
    return 1 if kind == SILU else TANH_SLOPE * (1 + 3 * TANH_CUBE * x**2)


@inner()
def dd_gate(x, kind):
    """v''."""
    return 0 if kind == SILU else 6 * TANH_SLOPE * TANH_CUBE * x


@inner()
def normal_cdf(x):
    """Phi, the distribution function of N(0, 1)."""
    return 0.5 * math.erfc(-SQRT_HALF * x)


@inner()
def normal_density(x):
    """phi, the density of N(0, 1)."""
    return DENSITY_AT_0 * math.exp(-0.5 * x**2)


@inner()
def smooth_f(x, kind, slope):
    if kind == TANH:
        return math.tanh(x)
    if kind == SOFTPLUS:
        return (x if x > 0 else 0) + math.log1p(math.exp(-abs(x)))
    if kind == SIGMOID:
        return sigmoid(x)
    if kind == ELU:
        return slope * math.expm1(x) if x <= 0 else x
    if kind == GELU:
        return x * normal_cdf(x)
    return x * sigmoid(gate(x, kind))


@inner()
def smooth_df(x, kind, slope):
    if kind == TANH:
        return 1 - math.tanh(x) ** 2
    if kind == SOFTPLUS:
        return sigmoid(x)
    if kind == SIGMOID:
        return sigmoid(x) * sigmoid(-x)
    if kind == ELU:
        return slope * math.exp(x) if x <= 0 else 1
    if kind == GELU:
        return normal_cdf(x) + x * normal_density(x)
    v = gate(x, kind)
    return sigmoid(v) + x * (sigmoid(v) * sigmoid(-v) * d_gate(x, kind))


@inner()
def smooth_ddf(x, kind, slope):
    if kind == TANH:
        return -2 * math.tanh(x) * (1 - math.tanh(x) ** 2)
    if kind == SOFTPLUS:
        return sigmoid(x) * sigmoid(-x)
    if kind == SIGMOID:
        return sigmoid(x) * sigmoid(-x) * (sigmoid(-x) - sigmoid(x))
    if kind == ELU:
        return slope * math.exp(x) if x <= 0 else 0
    if kind == GELU:
        return (2 - x**2) * normal_density(x)
    v, dv = gate(x, kind), d_gate(x, kind)
    s, opposite = sigmoid(v), sigmoid(-v)
    return s * opposite * (2 * dv + x * (dd_gate(x, kind) + (opposite - s) * dv**2))
