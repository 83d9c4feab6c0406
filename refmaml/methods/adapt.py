"""Adaptation as people call it: what is given checked and taken to where the kernels compute, what is found as it was given."""

from refmaml.execution.deferred_checks import run_deferred
from refmaml.execution.device_transfer import bring


def adapt(method, net, meta, x, y):
    """Adapted parameters (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...), as meta (M,) came: NumPy's or CuPy's.

    Raises ArgumentError, and NonFiniteError naming step, task and layer.
    """
    (here,), ((x, y),) = bring(net, (meta,), (x, y))
    (phi,), _ = run_deferred(
        net, lambda net, *arrays: ([method.adapted(net, *arrays)], {}), here, x, y
    )
    return net.kernels.match_input(phi, meta)
