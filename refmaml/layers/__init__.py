"""One module per layer; each writes out its four passes by hand.

    y, saved   = layer.forward(k, w, x)
    dx         = layer.backward(k, dw, w, saved, dy)
    ry, rsaved = layer.r_forward(k, w, rw, saved, rx)
    rdx        = layer.r_backward(k, rdw, w, rw, saved, rsaved, dy, rdy)

forward     computes y from the parameters w and the input x
backward    fills dw and returns dx
r_forward   computes R{y}, the derivative of y along the direction (rw, rx)
r_backward  fills rdw = R{dw} and returns rdx = R{dx}

k is a kernel set. w, dw, rw and rdw are dicts of arrays whose leading axis is the task:
(T, ...), or (1, ...) in w and rw where all tasks share them; dw and rdw always have one
row per task. x is (T, N, ...). `saved` and `rsaved` hold what the later passes need. In
the first layer of a net no pass needs dx, and the input has no tangent: `need_dx=False`
and `rx=None` say so.

A layer also gives the names and shapes of its parameters (`shapes`), the shape of its
output for one input (`output_shape`, which refuses a wrong shape), and initial values
(`init`). layer.py has the base class with the types of all of these.
"""

from refmaml.layers.activation import LeakyReLU, ReLU, Softplus, Tanh
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.bilinear import Conv2d, Linear
from refmaml.layers.bounded_gaussian_nll import BoundedGaussianNLL
from refmaml.layers.context import Context
from refmaml.layers.cosine_linear import CosineLinear
from refmaml.layers.drop_block import DropBlock2d
from refmaml.layers.dropout import Dropout
from refmaml.layers.elementwise_loss import BCEWithLogits, Huber
from refmaml.layers.eval_batch_norm import EvalBatchNorm2d
from refmaml.layers.film import FiLM
from refmaml.layers.gaussian_nll import GaussianNLL
from refmaml.layers.group_norm import GroupNorm, InstanceNorm2d, LayerNorm
from refmaml.layers.losses import MSE, CrossEntropy
from refmaml.layers.pooling import AvgPool2d, MaxPool2d, SpatialMean
from refmaml.layers.reshape import Flatten
from refmaml.layers.residual import Residual
from refmaml.layers.smooth_activation import ELU, GELU, Sigmoid, SiLU
from refmaml.layers.softmax import LogSoftmax, Softmax
from refmaml.layers.weighted_cross_entropy import WeightedCrossEntropy

__all__ = [
    "Conv2d",
    "Linear",
    "BatchNorm2d",
    "ReLU",
    "LeakyReLU",
    "Tanh",
    "Softplus",
    "MaxPool2d",
    "AvgPool2d",
    "SpatialMean",
    "Flatten",
    "Context",
    "FiLM",
    "EvalBatchNorm2d",
    "CrossEntropy",
    "MSE",
    "GroupNorm",
    "LayerNorm",
    "InstanceNorm2d",
    "Residual",
    "Sigmoid",
    "SiLU",
    "GELU",
    "ELU",
    "Softmax",
    "LogSoftmax",
    "Dropout",
    "BCEWithLogits",
    "Huber",
    "GaussianNLL",
    "WeightedCrossEntropy",
    "CosineLinear",
    "DropBlock2d",
    "BoundedGaussianNLL",
]
