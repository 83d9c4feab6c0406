"""Elementwise functions, each as f, f' and f''.

Branches look at real parts, so that the complex step runs through. At its kink a
piecewise linear function has the derivative of its left branch, as in PyTorch; NaN
stays NaN.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LEAKY, TANH, SOFTPLUS, SIGMOID, SILU, GELU, GELU_TANH, ELU = range(8)
# The numbers by which compiled kernels select a formula; smooth_functions.py has the
# functions from the sigmoid on.
NAMES = "leaky", "tanh", "softplus", "sigmoid", "silu", "gelu", "gelu_tanh", "elu"
NUMBERS = {name: number for number, name in enumerate(NAMES)}


class Elementwise(NamedTuple):
    """y = f(x), df = f', ddf = f''; ddf is None where f'' vanishes off the kinks.

    name, slope  select the formula in a compiled kernel; a function without a name is
                 computed by the three callables
    """

    f: Callable
    df: Callable
    ddf: Callable | None
    name: str = ""
    slope: float = 0.0


def sigmoid(x):
    """1 / (1 + e^-x), by the exponential that does not overflow."""
    e = np.exp(np.where(x.real > 0, -x, x))
    return np.where(x.real > 0, 1, e) / (1 + e)


def log_one_plus_exp(x):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    return np.where(x.real > 0, x, 0) + np.log1p(np.exp(np.where(x.real > 0, -x, x)))


def leaky(slope):
    """x where x > 0, slope x elsewhere; slope 0 is ReLU, whose derivative is a mask."""
    if slope == 0:
        return Elementwise(
            f=lambda x: np.where(x.real <= 0, 0, x),
            df=lambda x: ~(x.real <= 0),
            ddf=None,
            name="leaky",
        )
    return Elementwise(
        f=lambda x: np.where(x.real <= 0, slope * x, x),
        df=lambda x: np.where(x.real <= 0, x.dtype.type(slope), x.dtype.type(1)),
        ddf=None,
        name="leaky",
        slope=slope,
    )


tanh = Elementwise(
    f=np.tanh,
    df=lambda x: 1 - np.tanh(x) ** 2,
    ddf=lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
    name="tanh",
)

softplus = Elementwise(
    f=log_one_plus_exp, df=sigmoid, ddf=lambda x: sigmoid(x) * sigmoid(-x), name="softplus"
)
