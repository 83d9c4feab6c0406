"""Initial weights: functions (rng, shape, fan_in, fan_out) -> float64 array.

A layer takes one of them as `weight_init`.
"""

import numpy as np

Rng = np.random.Generator


def xavier_uniform(
    rng: Rng, shape: tuple, fan_in: int, fan_out: int, gain: float = 1
) -> np.ndarray:
    """U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)).

    MAML's convolutions start from it, with gain 1.
    Source: Glorot & Bengio 2010, eq. 16.
    """
    a = gain * np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-a, a, shape)


def torch_uniform(rng: Rng, shape: tuple, fan_in: int, fan_out: int) -> np.ndarray:
    """U(-a, a), a = 1 / sqrt(fan_in): PyTorch's default for Conv2d and Linear."""
    a = 1 / np.sqrt(fan_in)
    return rng.uniform(-a, a, shape)


def standard_normal(rng: Rng, shape: tuple, fan_in: int, fan_out: int) -> np.ndarray:
    """N(0, 1): the head of MAML's Omniglot net."""
    return rng.standard_normal(shape)


def small_normal(rng: Rng, shape: tuple, fan_in: int, fan_out: int) -> np.ndarray:
    """N(0, 0.01^2), cut off at two standard deviations: MAML's sinusoid net."""
    values = rng.standard_normal(shape)
    while (far := np.abs(values) > 2).any():
        values[far] = rng.standard_normal(far.sum())
    return 0.01 * values
