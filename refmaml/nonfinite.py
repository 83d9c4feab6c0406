"""Numbers that are not finite: errors that name the first place where one appeared."""

import numpy as np

from refmaml.errors import NonFiniteError


def refuse_pass(net, primal, w, x, stage):
    """Raise NonFiniteError if the pass at parameters w (T, P) on inputs x needs one.

    The error names the stage and the first task and layer whose outputs are not finite.
    A net without layers (a quadratic) is checked by its loss and gradient alone.
    """
    to_host = net.kernels.to_host
    refuse_non_finite(to_host(w), f"{stage}: the parameters")
    refuse_non_finite(to_host(x), f"{stage}: the inputs")
    with np.errstate(all="ignore"):
        for name, layer, y in net.layer_outputs(w, x):
            place = f"layer {name} ({type(layer).__name__})"
            refuse_non_finite(to_host(y), f"{stage}: the outputs of {place}")
    refuse_non_finite(to_host(primal.loss), f"{stage}: the loss")
    refuse_non_finite(to_host(primal.grad), f"{stage}: the gradient")


def refuse_non_finite(a, what):
    """Raise NonFiniteError if a NumPy array (T, ...) holds NaN or infinity.

    The error names the first such task.
    """
    bad = ~np.isfinite(a.reshape(len(a), -1)).all(axis=1)
    if bad.any():
        task = int(bad.argmax())
        count = int((~np.isfinite(a[task])).sum())
        raise NonFiniteError(f"{what}: expected finite numbers, got {count} non-finite ones", task)


def refuse_vector(net, what, vector, advice="", wanted="numbers", task=None):
    """Raise NonFiniteError for a NumPy vector (M,), naming its first bad entry."""
    bad = ~np.isfinite(vector)
    place = int(bad.argmax())
    name = net.name_of(place) if place < net.num_params else ""
    raise NonFiniteError(
        f"{what}: expected finite {wanted}, got {bad.sum()} non-finite ones, "
        f"the first at entry {place}{name}{advice}",
        task,
    )
