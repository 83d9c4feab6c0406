"""Arguments and copies of the losses of loss_cases.py, and what they refuse."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from loss_cases import EACH

import refmaml as rm

X, THREE = np.ones((1, 2, 3)), np.ones((1, 2, 3))


def gradient(loss, y, outputs=3):
    net = rm.Sequential([rm.Linear(3, outputs)], loss, (3,))
    return net.gradient(net.init(0, float)[None], X, y)


REFUSED = [
    (lambda: rm.BCEWithLogits("average"), "reduction: expected one of mean, sum, sum/K"),
    (lambda: rm.BCEWithLogits(pos_weight=0), "pos_weight: expected a finite number > 0, got 0"),
    (lambda: rm.BCEWithLogits(pos_weight=[1, -1]), "pos_weight: expected a sequence of finite"),
    (lambda: rm.BCEWithLogits(pos_weight="ab"), "pos_weight: expected a sequence of finite"),
    (
        lambda: gradient(rm.BCEWithLogits(pos_weight=[1, 2]), THREE),
        "pos_weight: expected 3 numbers, one for each output, got 2",
    ),
    (
        lambda: gradient(rm.BCEWithLogits(), 1.5 * THREE),
        "y: expected targets in [0, 1] for BCEWithLogits, got a target 1.5",
    ),
    (
        lambda: gradient(rm.BCEWithLogits(), -THREE),
        "y: expected targets in [0, 1] for BCEWithLogits, got a target -1.0",
    ),
    (lambda: gradient(rm.BCEWithLogits(), np.nan * THREE), "got a target nan"),
    (lambda: gradient(rm.BCEWithLogits(), THREE.astype(int)), "y: expected real numbers"),
    (lambda: gradient(rm.BCEWithLogits(), THREE[..., :2]), "y: expected shape (1, 2, 3)"),
    (lambda: rm.Huber(delta=0), "delta: expected a finite number > 0, got 0"),
    (lambda: rm.Huber(delta="1"), "delta: expected a finite number > 0, got '1'"),
    (lambda: gradient(rm.Huber(), THREE[..., 0]), "y: expected shape (1, 2, 3) for Huber"),
    (lambda: rm.GaussianNLL(full=1), "full: expected True or False, got 1"),
    (lambda: rm.BoundedGaussianNLL(floor=1), "floor: expected a number in (0, 1), got 1"),
    (lambda: gradient(rm.GaussianNLL(), THREE), "net: expected outputs of shape (2 D,)"),
    (lambda: gradient(rm.GaussianNLL(), THREE, 4), "y: expected shape (1, 2, 2) for GaussianNLL"),
    (
        lambda: rm.WeightedCrossEntropy(label_smoothing=1.1),
        "label_smoothing: expected a number in [0, 1], got 1.1",
    ),
    (lambda: rm.WeightedCrossEntropy(label_smoothing=True), "label_smoothing: expected a number"),
    (lambda: rm.WeightedCrossEntropy(weight=()), "weight: expected a sequence of finite"),
    (lambda: rm.WeightedCrossEntropy(weight=2.0), "weight: expected a sequence of finite"),
    (lambda: rm.WeightedCrossEntropy(weight=(0, 0)), "weight: expected a weight > 0"),
    (
        lambda: gradient(rm.WeightedCrossEntropy(weight=(1, 2)), np.zeros((1, 2), int)),
        "weight: expected 3 numbers, one for each output, got 2",
    ),
    (
        lambda: gradient(rm.WeightedCrossEntropy(), np.full((1, 2), 3)),
        "y: expected labels in 0..2, got a label 3",
    ),
]


@pytest.mark.parametrize("make,message", REFUSED, ids=[m for _, m in REFUSED])
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_task_without_a_weight_is_named():
    loss = rm.WeightedCrossEntropy(weight=(0, 1, 1))
    net = rm.Sequential([rm.Linear(3, 3)], loss, (3,))
    x, y = np.ones((2, 2, 3)), np.array([[1, 2], [0, 0]])
    with pytest.raises(rm.NonFiniteError, match="task 1"):
        rm.MAML(0.1).meta_gradient(net, net.init(0, float), rm.Batch(x, y, x, y))


@pytest.mark.parametrize(
    "loss", [*EACH, rm.BCEWithLogits(pos_weight=np.array([1.0, 2.0]))], ids=str
)
def test_copies_and_pickles_are_equal(loss):
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), replace(loss)):
        assert twin == loss and hash(twin) == hash(loss)
