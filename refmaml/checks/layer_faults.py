"""The known mistakes of each kind of layer."""

from refmaml import layers
from refmaml.checks import norm_faults, other_faults, window_faults

TABLES = (
    (layers.Conv2d, window_faults.conv_faults),
    (layers.MaxPool2d, window_faults.max_pool_faults),
    (layers.AvgPool2d, window_faults.average_faults),
    (norm_faults.NORMS, norm_faults.norm_faults),
    (layers.Softmax, other_faults.softmax_faults),
    (layers.LogSoftmax, other_faults.log_softmax_faults),
    (layers.Linear, other_faults.linear_faults),
)


def faults_of(case):
    """The Faults of a case's layer, as a list."""
    for kinds, function in TABLES:
        if isinstance(case.layer, kinds):
            return list(function(case))
    return list(other_faults.elementwise_faults(case))
