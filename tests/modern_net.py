"""A small net of today's parts: convolution, group norm, GELU and a residual block."""

import numpy as np

import refmaml as rm
from refmaml.oracles import cases


def modern_case():
    """(net, theta, batch), smooth everywhere."""
    branch = [rm.Conv2d(4, 4, 3, padding=1), rm.GroupNorm(2, 4), rm.GELU()]
    layers = [
        *(rm.Conv2d(1, 4, 3, padding=1), rm.GroupNorm(2, 4), rm.GELU()),
        *(rm.Residual(branch), rm.AvgPool2d(2), rm.Flatten(), rm.Linear(16, 3)),
    ]
    net, rng = rm.Sequential(layers, rm.CrossEntropy(), (1, 4, 4)), np.random.default_rng(0)
    return net, cases.start(net, rng), cases.tasks_for(net, rng)
