"""Numbers that are not finite: where the first of them arose."""

import numpy as np

from refmaml.errors import NonFiniteError


def refuse_pass(net, primal, w, x, stage):
    """Raise NonFiniteError naming the first task and layer at which a pass at w on x left the finite numbers, if it did."""
    back = net.kernels.to_host
    refuse_non_finite(back(w), f"{stage}: the parameters")
    refuse_non_finite(back(x), f"{stage}: the inputs")
    with np.errstate(all="ignore"):
        for i, (layer, wl) in enumerate(zip(net.layers, net.parameters.views(w), strict=True)):
            x, _ = layer.forward(net.kernels, wl, x)
            refuse_non_finite(
                back(x), f"{stage}: the outputs of layer {i} ({type(layer).__name__})"
            )
    refuse_non_finite(back(primal.loss), f"{stage}: the loss")
    refuse_non_finite(back(primal.grad), f"{stage}: the gradient")


def refuse_non_finite(a, what):
    """Raise NonFiniteError if a NumPy array with a leading task axis holds NaN or infinity, naming its first such task."""
    bad = ~np.isfinite(a.reshape(len(a), -1)).all(axis=1)
    if bad.any():
        task = int(bad.argmax())
        raise NonFiniteError(
            f"{what}: expected finite numbers, got {int((~np.isfinite(a[task])).sum())} non-finite ones",
            task,
        )


def require_finite(net, a, refuse):
    """Call refuse(net, a as NumPy's) unless all of `a` is finite; see `note`."""
    note(net, net.kernels.xp.isfinite(a).all(), lambda: refuse(net, net.kernels.to_host(a)))


def note(net, finite, refuse):
    """Call refuse() unless `finite` (); or, on a net that takes notes, note it in net.seen."""
    if getattr(net, "seen", None) is not None:
        net.seen.append(finite)
    elif not finite:
        refuse()


def refuse_vector(net, what, vector, advice="", wanted="numbers", task=None):
    """Raise NonFiniteError for a vector (M,) that is not finite, naming its first such parameter."""
    bad = ~np.isfinite(vector)
    place = int(bad.argmax())
    raise NonFiniteError(
        f"{what}: expected finite {wanted}, got {bad.sum()} non-finite ones, the first at entry {place}"
        f"{net.name_of(place) if place < net.num_params else ''}{advice}",
        task,
    )
