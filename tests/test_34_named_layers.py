"""Layers with names of their own: the names change, and no number does."""

import copy
import pickle

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels

NAMES = ("features.conv", "features.norm", "act", "pool", "flat", "head")
SHAPE = (2, 6, 6)


def layers():
    return [
        rm.Conv2d(2, 3, 3, padding=1), rm.BatchNorm2d(3), rm.ReLU(), rm.MaxPool2d(2),
        rm.Flatten(), rm.Linear(27, 4),
    ]  # fmt: skip


def named(**options):
    return rm.Sequential(dict(zip(NAMES, layers(), strict=True)), input_shape=SHAPE, **options)


def numbered(**options):
    return rm.Sequential(layers(), input_shape=SHAPE, **options)


def batch(dtype=np.float64):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3, 5, *SHAPE)).astype(dtype), rng.integers(0, 4, (2, 3, 5))
    return rm.Batch(x[0], y[0], x[1], y[1])


def test_parameters_have_the_names_of_their_layers():
    net, theta = named(), named().init(0)
    assert list(net.shapes) == [
        "features.conv.weight", "features.conv.bias", "features.norm.weight",
        "features.norm.bias", "head.weight", "head.bias",
    ]  # fmt: skip
    assert np.array_equal(net.flat(net.named(theta)), theta)
    assert np.array_equal(net.mask(("head",)), numbered().mask(("head",)))
    assert np.array_equal(net.mask(("features.*",)), numbered().mask(("body",)))
    assert "features.norm: BatchNorm2d(" in repr(net)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [kernels.reference, kernels.cpu])
def test_names_change_no_bit(make, dtype):
    results = []
    for net in (named(kernels=make()), numbered(kernels=make())):
        theta = net.init(seed=1, dtype=dtype)
        out = rm.MAML(0.1, 2).meta_gradient(net, theta, batch(dtype))
        H = net.hessian(theta, batch(dtype).x_query, batch(dtype).y_query)
        results.append((theta, out.loss, out.grad, H @ theta))
    assert all(map(np.array_equal, *results)) and np.any(results[0][2])


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "with_kernels": lambda net: net.with_kernels(kernels.cpu()),
    "with_loss": lambda net: net.with_loss(rm.CrossEntropy("sum")),
}
if hasattr(rm.Sequential, "evaluation"):  # nets with dropout
    COPIES["evaluation"] = lambda net: net.evaluation()
    COPIES["with_dropout_seed"] = lambda net: net.with_dropout_seed(3)


@pytest.mark.parametrize("twin", COPIES.values(), ids=COPIES)
def test_copies_keep_the_names(twin):
    assert twin(named()).names == NAMES and twin(named()).shapes == named().shapes


def test_errors_name_the_layer():
    with pytest.raises(rm.ArgumentError, match=r"^layer head: input of Linear: expected"):
        rm.Sequential(dict(zip(NAMES, layers(), strict=True)), input_shape=(2, 8, 8))
    theta = named().init(0, np.float64)
    theta[:54] = 1e308  # the filters: their sums overflow
    with pytest.raises(rm.NonFiniteError, match=r"layer features.conv \(Conv2d\)"):
        rm.MAML(0.1).meta_gradient(named(), theta, batch())


def test_two_parameters_of_one_name_are_refused():
    class Block(rm.Linear):
        """A layer whose parameter has a dot in its name."""

        def shapes(self):
            return {"body.weight": (2, 2)}

    with pytest.raises(rm.ArgumentError, match=r"layers: expected .*'a.body.weight'"):
        rm.Sequential({"a.body": rm.Linear(2, 2), "a": Block(2, 2)}, rm.MSE())


def test_a_parameter_may_have_a_dot_in_its_name():
    class Dotted(rm.Linear):
        """A linear layer whose weight is called inner.weight."""

        def shapes(self):
            return {"inner.weight": (4, 2)}

        def init(self, rng):
            return {"inner.weight": rng.standard_normal((4, 2))}

    net = rm.Sequential({"x.y": Dotted(2, 4)}, rm.MSE())
    theta = net.init(0, np.float64)
    (views,) = net.parameters.views(theta[None])
    assert list(net.shapes) == ["x.y.inner.weight"]
    assert np.array_equal(views["inner.weight"][0].ravel(), theta)


def test_a_context_is_found_by_its_own_name():
    net = rm.Sequential({"c": rm.Context(2), "fc": rm.Linear(5, 1)}, rm.MSE(), (3,))
    assert net.mask(("context",)).sum() == 2
