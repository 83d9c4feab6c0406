"""Support and query images of different sizes, where the net takes both."""

import numpy as np
import pytest
from weighted_and_ragged import image_net

import refmaml as rm
from refmaml.errors import ArgumentError
from refmaml.training import evaluate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("method", [rm.MAML(0.3, 2), rm.FirstOrderMAML(0.3), rm.IMAML(2.0)])
def test_query_images_may_have_another_size_where_the_net_takes_both(method, kernels):
    rng, net = np.random.default_rng(3), image_net()
    x, y = rng.standard_normal((2, 4, 1, 6, 6)), rng.integers(0, 2, (2, 4))
    batch = rm.Batch(x, y, rng.standard_normal((2, 3, 1, 9, 5)), y[:, :3])
    theta, h = net.init(0, float), 1e-30
    v = rng.standard_normal(theta.shape)
    slope = method.meta_gradient(net, theta, batch).grad @ v
    if isinstance(method, rm.MAML):
        step = method.meta_gradient(net, theta + 1j * h * v, batch).loss.imag / h
        assert abs(slope - step) <= 1e-12 * abs(step)
    other = method.meta_gradient(image_net(kernels), theta, batch).grad @ v
    assert abs(other - slope) <= 1e-10 * abs(slope)


def test_a_net_with_a_flat_head_refuses_query_images_of_another_size():
    net = rm.Sequential([rm.Flatten(), rm.Linear(16, 2)])
    x, y = np.zeros((1, 2, 1, 4, 4)), np.zeros((1, 2), int)
    batch = rm.Batch(x, y, np.zeros((1, 2, 1, 5, 5)), y)
    with pytest.raises(ArgumentError, match="Linear: expected"):
        rm.MAML(0.1).meta_gradient(net, net.init(0, float), batch)
    with pytest.raises(ArgumentError, match="^x_query"):
        rm.Batch(x, y, np.zeros((1, 2, 3, 4, 4)), y)  # other channels


def test_query_examples_one_by_one_need_the_size_of_the_support_images():
    net, y = image_net(), np.zeros((2, 3), int)
    batch = rm.Batch(np.ones((2, 3, 1, 4, 4)), y, np.ones((2, 3, 1, 5, 5)), y)
    with pytest.raises(ArgumentError, match="^transductive"):
        evaluate(net, rm.MAML(0.1), net.init(0, float), lambda t: batch, 2, transductive=False)
