"""Initial weights: functions (rng, shape, fan_in, fan_out) -> float64 array, given to a layer as `weight_init`."""

import numpy as np


def xavier_uniform(rng, shape, fan_in, fan_out, gain=1):
    """U(-a, a), a = gain sqrt(6 / (fan_in + fan_out)): Glorot & Bengio 2010, eq. 16; what MAML's convolutions start from, with gain 1."""
    a = gain * np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-a, a, shape)


def torch_uniform(rng, shape, fan_in, fan_out):
    """U(-a, a), a = 1 / sqrt(fan_in): PyTorch's default for Conv2d and Linear."""
    a = 1 / np.sqrt(fan_in)
    return rng.uniform(-a, a, shape)


def standard_normal(rng, shape, fan_in, fan_out):
    """N(0, 1): the head of MAML's Omniglot net."""
    return rng.standard_normal(shape)


def small_normal(rng, shape, fan_in, fan_out):
    """N(0, 0.01^2), cut at two standard deviations: MAML's sinusoid net."""
    values = rng.standard_normal(shape)
    while (far := np.abs(values) > 2).any():
        values[far] = rng.standard_normal(far.sum())
    return 0.01 * values
