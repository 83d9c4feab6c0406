"""Batch-norm in float32 on inputs whose mean is a thousand standard deviations.

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


def test_a_channel_without_variance_keeps_its_scale():
    x = np.full((1, 4, 2, 9), 1234.567, np.float32)
    y, xh, s = np.empty_like(x), np.empty_like(x), np.empty((1, 2), np.float32)
    gamma, beta = np.ones((1, 2), np.float32), np.zeros((1, 2), np.float32)
    CPU.batch_norm_forward(y, xh, s, x, gamma, beta, 1e-5)
    assert np.allclose(s, 1e-5**-0.5, rtol=1e-6) and abs(xh).max() < 1e-3
