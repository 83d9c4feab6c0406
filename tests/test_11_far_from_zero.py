"""The norms in float32 on inputs whose mean is a thousand standard deviations.

Rounding an input or its mean shifts the centred values by MEAN roundings, and no
algorithm that reads float32 can avoid more. So the errors may be a few times MEAN eps;
rounding a mean before it multiplies another one would make them MEAN times larger.
"""

import numpy as np
import pytest
from kernel_passes import far_from_zero

import refmaml as rm
from refmaml import kernels
from refmaml.batch import Batch
from refmaml.layers import BatchNorm2d
from refmaml.oracles.cases import LayerCase

pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

CPU = kernels.cpu(threads=1)
MEAN = 1000
ROUNDING = MEAN * np.finfo(np.float32).eps


def test_every_pass_of_batch_norm_is_accurate():
    errors = far_from_zero(LayerCase(BatchNorm2d(5), (5, 9, 8)), CPU, MEAN)
    assert max(errors.values()) < 8 * ROUNDING, errors


@pytest.mark.parametrize(
    "layer, shape",
    [
        (rm.GroupNorm(4, 16), (16, 9, 8)),
        (rm.GroupNorm(2, 40), (40,)),
        (rm.LayerNorm((5, 9, 8)), (5, 9, 8)),
        (rm.LayerNorm((9, 8)), (5, 9, 8)),
        (rm.InstanceNorm2d(5), (5, 9, 8)),
    ],
)
@pytest.mark.parametrize("chosen", [CPU, kernels.reference()], ids=lambda k: k.name)
def test_every_pass_of_the_norms_of_examples_is_accurate(layer, shape, chosen):
    errors = far_from_zero(LayerCase(layer, shape), chosen, MEAN)
    # Inputs and tangents are centred twice, which leaves no rounding of the mean: the
    # errors are as those near zero, where each is below 2 eps.
    assert max(errors.values()) < 32 * np.finfo(np.float32).eps, errors


def test_a_tangent_that_is_not_centred_first_is_a_hundred_times_worse():
    """On rx far from zero, <xh rx> multiplies the rounding of <xh> by <rx>."""
    k = kernels.reference()

    def uncentred(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
        mean, slope = (a.mean(axis=3, keepdims=True) for a in (rx, xh * rx))
        rs[...] = -s * s * slope[..., 0]
        rxh[...] = s[..., None] * (rx - mean - xh * slope)
        ry[...] = rgamma[:, None] * xh + gamma[:, None] * rxh + rbeta[:, None]

    case = LayerCase(rm.InstanceNorm2d(1), (1, 20, 20))
    wrong = far_from_zero(case, k.replace(group_norm_r_forward=uncentred), MEAN)
    assert wrong["ry"] > 100 * far_from_zero(case, k, MEAN)["ry"]


def far_batch(dtype):
    rng = np.random.default_rng(1)
    x, xq = (MEAN + rng.standard_normal((3, n, 1, 10, 10)).astype(np.float32) for n in (5, 9))
    y, yq = (rng.integers(0, 5, (3, n)) for n in (5, 9))
    return Batch(x.astype(dtype), y, xq.astype(dtype), yq)


@pytest.mark.parametrize("by_kernel", [False, True])
def test_the_meta_gradient_of_a_convolution_and_a_batch_norm_is_accurate(by_kernel):
    """As a whole net, and kernel by kernel."""
    layers = [rm.Conv2d(1, 8, 3), rm.BatchNorm2d(8), rm.Tanh(), rm.Flatten(), rm.Linear(512, 5)]
    net = rm.Sequential(layers, rm.CrossEntropy(), (1, 10, 10), kernels=kernels.reference())
    fast = net.with_kernels(CPU.replace(name="cpu") if by_kernel else CPU)
    method, theta = rm.MAML(0.1, 2), net.init(0)
    exact = method.meta_gradient(net, theta.astype(float), far_batch(float)).grad
    error = np.linalg.norm(method.meta_gradient(fast, theta, far_batch(np.float32)).grad - exact)
    # Two inner steps and their adjoints: six passes, each of which rounds.
    assert error / np.linalg.norm(exact) < 6 * ROUNDING


def test_sums_that_start_from_the_mean_of_the_first_image_are_accurate():
    """The first image is 1,000 deviations of its pixels away from the others, so that
    the mean of all is sqrt(5) standard deviations of the batch away from its mean.
    """
    layers = [rm.Conv2d(1, 8, 3), rm.BatchNorm2d(8), rm.ReLU(), rm.Flatten(), rm.Linear(2592, 5)]
    net = rm.Sequential(layers, rm.CrossEntropy(), (1, 20, 20), kernels=kernels.reference())
    theta, rng = net.init(0), np.random.default_rng(2)
    x, y = rng.standard_normal((1, 6, 1, 20, 20)).astype(np.float32), rng.integers(0, 5, (1, 6))
    x[:, 0] += MEAN
    exact = net.gradient(theta[None].astype(float), x.astype(float), y)
    fast = net.with_kernels(CPU).gradient(theta[None], x, y)
    error = np.linalg.norm(fast - exact) / np.linalg.norm(exact)
    # It is 1.0e-6, and the same where a pass of its own takes the mean of all images.
    assert error < 16 * np.finfo(np.float32).eps, error


def test_a_channel_without_variance_keeps_its_scale():
    x = np.full((1, 4, 2, 9), 1234.567, np.float32)
    y, xh, s = np.empty_like(x), np.empty_like(x), np.empty((1, 2), np.float32)
    gamma, beta = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    CPU.batch_norm_forward(y, xh, s, x, gamma, beta, 1e-5)
    assert np.allclose(s, 1e-5**-0.5, rtol=1e-6) and abs(xh).max() < 1e-3
