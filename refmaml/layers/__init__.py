"""One module per layer; each writes out the four passes of the design by hand.

    y, saved   = layer.forward(k, w, x)                       y from the parameters w and the input x
    dx         = layer.backward(k, dw, w, saved, dy)          fills dw, returns dx
    ry, rsaved = layer.r_forward(k, w, rw, saved, rx)         R{y} along the direction (rw, rx)
    rdx        = layer.r_backward(k, rdw, w, rw, saved, rsaved, dy, rdy)      fills rdw = R{dw}, returns rdx = R{dx}

k is a kernel set. w, dw, rw and rdw are dicts of arrays whose leading axis is the task: (T, ...), or (1, ...) in w and rw where all
tasks share them; dw and rdw are always one per task. x is (T, N, ...). `saved` and `rsaved` are what the later passes need.
In the first layer of a net nothing needs dx, and the input has no tangent: `need_dx=False` and `rx=None` say so.

A layer also tells the names and shapes of its parameters (`shapes`), the shape it makes of one input (`output_shape`, which is where a
wrong shape is refused), and initial values (`init`).
"""

from refmaml.layers.activation import LeakyReLU, ReLU, Softplus, Tanh
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.bilinear import Conv2d, Linear
from refmaml.layers.context import Context
from refmaml.layers.film import FiLM
from refmaml.layers.losses import MSE, CrossEntropy
from refmaml.layers.pooling import AvgPool2d, MaxPool2d, SpatialMean
from refmaml.layers.reshape import Flatten

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
    "CrossEntropy",
    "MSE",
]
