"""What a mistake in a layer gives on a case, to be compared with the user's results."""

from typing import NamedTuple

import numpy as np


class Fault(NamedTuple):
    """A mistake by name, with its results on one case.

    outputs  {"x": dx, parameter: its gradient}: those that it changes
    y        the output that the same mistake gives in the forward pass, or None
    dy       the adjoint for which outputs are, where it has another shape than the
             case's: a mistaken geometry may have another number of windows
    """

    name: str
    fix: str
    outputs: dict
    y: np.ndarray | None = None
    dy: np.ndarray | None = None


def faults_of(case):
    """The Faults of a case's layer, as a list."""
    from refmaml import layers
    from refmaml.checks import norm_faults, other_faults, window_faults

    tables = (
        (layers.Conv2d, window_faults.conv_faults),
        (layers.MaxPool2d, window_faults.max_pool_faults),
        (layers.AvgPool2d, window_faults.average_faults),
        (norm_faults.NORMS, norm_faults.norm_faults),
        (layers.Softmax, other_faults.softmax_faults),
        (layers.LogSoftmax, other_faults.log_softmax_faults),
        (layers.Linear, other_faults.linear_faults),
    )
    for kinds, function in tables:
        if isinstance(case.layer, kinds):
            return list(function(case))
    return list(other_faults.elementwise_faults(case))
