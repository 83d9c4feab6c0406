"""iMAML and Reptile as one kernel beside the methods on the reference kernels."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.execution.method_kernels import as_method_kernel, sets_for
from refmaml.oracles.net_checks import net_terms
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.oracles.whole_net_cases import nets_of_parts
from refmaml.oracles.whole_net_checks import in_float64, nets, probe, tasks_of

pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

CPU = kernels.cpu(threads=1)
NETS = nets() | nets_of_parts()
STEPS, RATE = 3, 0.02
# H + lambda I is positive definite and well conditioned here, so that CG multiplies
# rounding errors by little.
STRENGTH = 50.0


def imaml(**settings):
    given = {"regularization": STRENGTH, "inner_steps": STEPS, "inner_lr": RATE, "cg_steps": 4}
    return rm.IMAML(**(given | settings))


def reptile(**settings):
    return rm.Reptile(**({"inner_lr": RATE, "inner_steps": STEPS} | settings))


def tasks(net, dtype=float, seed=0):
    """theta and a batch, away from kinks."""
    w, x, y, _, _ = probe(net, dtype, shared=True, seed=seed)
    return w[0], tasks_of(x, y)


def start_of(method, net, theta):
    """The meta-parameters; a carried moment and its n are not 0."""
    meta = method.init(net, theta)
    if len(meta) > len(theta):
        meta[len(theta) :] = np.linspace(0.1, 0.9, len(meta) - len(theta))
    return meta


def by_kernel(method, net, meta, batch, kernel_set=CPU):
    """The TaskGradients of the kernel, or None where it found an overflow."""
    net = net.with_kernels(kernel_set)
    with np.errstate(all="ignore"):
        return as_method_kernel(method).by_kernel(net, meta, *sets_for(net, meta, batch))


def by_reference(method, net, meta, batch):
    """The same, layer by layer in float64."""
    theta, *arrays = in_float64(meta, *(a for _, a in batch.named))
    with np.errstate(all="ignore"):
        return method.task_gradients(net, theta, rm.Batch(*arrays), False)


def error_over_tolerance(method, net, meta, batch, found=None):
    """The largest error of gradient, loss and report as a part of its tolerance.

    Infinite where a status differs.
    """
    found = found or by_kernel(method, net, meta, batch)
    exact = by_reference(method, net, meta, batch)
    # A forward, backward or product pass has the terms of the net: three in an inner
    # step, and two products with two factors each in an iteration of CG. A Newton step
    # and its line search have as many iterations.
    steps, cg_steps = method.inner_steps, getattr(method, "cg_steps", 0)
    newton = getattr(method, "solver", "") == "newton_cg"
    passes = 3 * (steps + 1) + 4 * cg_steps * (steps + 1 if newton else 1)
    limit = tolerance(meta.dtype, passes * net_terms(net, batch.x_query.shape[1]))
    assert found.report.keys() == exact.report.keys()
    errors = [relative_error(found.grad, exact.grad), relative_error(found.loss, exact.loss)]
    for name, value in exact.report.items():
        if value.dtype.kind == "i" and not np.array_equal(found.report[name], value):
            return np.inf
        if value.dtype.kind == "f":  # a small residual is a difference of vectors of size 1
            errors.append(abs(found.report[name] - value).max() / max(1, value.max()))
    return max(errors) / limit


# Parameters that adapt, and one that does not.
HALF_OF_IT = {"adapts": ("*",), "frozen": ("2.*",)}
