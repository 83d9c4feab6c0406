"""The losses that the tests of losses share, and a net with one of them."""

import refmaml as rm
from refmaml.oracles import cases

NEW = (rm.BCEWithLogits, rm.Huber, rm.GaussianNLL, rm.BoundedGaussianNLL,
       rm.WeightedCrossEntropy)  # fmt: skip
LOSSES = [loss for loss in cases.LOSSES if isinstance(loss, NEW)]
EACH = [rm.BCEWithLogits(), rm.Huber(delta=0.5), rm.GaussianNLL(),
        rm.WeightedCrossEntropy(label_smoothing=0.1, weight=(1, 2, 0.5, 1)),
        rm.BoundedGaussianNLL()]  # fmt: skip
AGREES = 1e-11  # with autodiff libraries in float64, as in test_80_autodiff.py
PRECISE = 1e-12  # a meta-gradient of two steps against the complex step


def net_with(loss):
    return rm.Sequential([rm.Linear(3, 5), rm.Tanh(), rm.Linear(5, 4)], loss, (3,))
