"""How exactly the meta-gradient of a user's own loss can be known.

Nothing is known of the loss but its values and derivatives. So its parameters are moved
by roundings, the recursion runs in float32, and where products are differences, the
recursion runs with another step of these."""

from contextlib import suppress

import numpy as np

from refmaml.doctor import conditioning as of_nets
from refmaml.doctor.own_loss.model import LossModel
from refmaml.errors import RefmamlError

LESS = 10**0.25  # between two steps of differences: their errors differ, both near the best
FLIPPING = 2 * of_nets.KINK  # roundings by which a choice near a kink may be moved


def truth_at(case, net, meta):
    """(M,) the meta-gradient at other meta-parameters, or by another model."""
    rows = case.method.task_gradients(net, meta, case.batch, trace=False).grad
    return case.mean(rows * case.chain) * case.learned


def moved(case, size, scale=np.abs):
    """(M,) how far the true gradient moves when every parameter a is off by up to
    `size` scale(a): the largest of several trials."""
    rng, found = np.random.default_rng(0), np.zeros(len(case.meta))
    for _ in range(of_nets.TRIALS):
        other = truth_at(case, case.net, case.moved_meta(rng, size, scale))
        found = np.maximum(found, np.abs(other - case.truth))
    return found


def lost_in_float32(case):
    """(M,) the error of the gradient when the recursion runs in float32, or 0 where the
    loss does not run in it."""
    with np.errstate(all="ignore"), suppress(RefmamlError):
        single = case.rounded(np.float32)
        found = truth_at(single, case.net, single.meta.astype(np.float32))
        if np.isfinite(found).all():
            return np.abs(found - single.truth)
    return np.zeros(len(case.meta))


def error_of_products(case):
    """(M,) how far the gradient moves with another step of the differences that stand
    for products; 0 where products are exact."""
    net = case.net
    if net.step is None and not net.functions.uses_differences:
        return np.zeros(len(case.meta))
    functions = net.functions.with_smaller_step(LESS)
    other = LossModel(functions, net.parameters, net.step and net.step / LESS)
    return np.abs(truth_at(case, other, case.meta) - case.truth)


def noise(case):
    """{name: how far the true gradient moves by one rounding of float64}."""
    moved_by_one = moved(case, np.finfo(np.float64).eps)
    return of_nets.noise_from(case, moved_by_one, lost_in_float32(case))


def terms(case):
    """How many values are summed on the way to one result, as far as can be seen: over
    the fan-in of an array, or over all numbers of a task's inputs."""
    inputs = max(d.sum_length for task in case.batch.tasks for d in task)
    fan_in = max(int(np.prod(shape[1:])) for shape in case.net.shapes.values())
    return 2 * (getattr(case.method, "inner_steps", 0) + 1) * max(fan_in, inputs)


def allowed(case):
    """(M,) how far each entry of a right gradient may be off.

    See doctor/conditioning.py; what differences in place of products leave open is
    added."""
    eps, out = np.finfo(case.dtype).eps, np.empty(len(case.meta))
    whole = np.abs(case.truth).max()
    least = of_nets.CANCELLED * whole if case.dtype is np.float64 else 0
    open_ = error_of_products(case)
    for name, place in case.places.items():
        size = np.abs(case.truth[place]).max()
        roundings = max(case.noise[name] / np.finfo(np.float64).eps, least)
        by_rounding = np.sqrt(terms(case)) * eps * roundings + 3 * open_[place].max()
        out[place] = by_rounding if case.tol is None or size == 0 else case.tol * size
    return out


def jump(case):
    """How far FLIPPING roundings of the parameters move the gradient, in multiples of
    what rounding allows; a smooth one moves FLIPPING times as far as by one."""
    return float((moved(case, FLIPPING * np.finfo(case.dtype).eps) / case.allowed).max())
