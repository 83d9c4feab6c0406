"""What a net consists of for the whole-net kernel: operations as plain numbers.

They name no layers. The position of a parameter is its offset in the flat parameter
vector of a task, ABSENT where there is none. Extents are those of one image.
"""

from typing import NamedTuple

ABSENT = -1
MEAN_OF_SQUARES, CROSS_ENTROPY = 0, 1  # the losses


class Matrix(NamedTuple):
    """A matrix product. weight (O, C), bias (O,)."""

    C: int
    O: int
    weight: int
    bias: int = ABSENT


class Convolution(NamedTuple):
    """A convolution. weight (O, C / groups, kH, kW), bias (O,).

    start: (top, left) padding.
    """

    C: int
    H: int
    W: int
    O: int
    Ho: int
    Wo: int
    kernel: tuple
    stride: tuple
    start: tuple
    weight: int
    bias: int = ABSENT
    dilation: tuple = (1, 1)
    groups: int = 1


class NormActPool(NamedTuple):
    """Batch-norm, then a piecewise linear activation, then max-pooling.

    The activation has its kink at 0 (slope 0: ReLU, 1: none). The windows do not
    overlap ((1, 1): no pooling). gamma, beta (C,).
    """

    C: int
    H: int
    W: int
    Ho: int
    Wo: int
    eps: float
    gamma: int
    beta: int
    slope: float = 1.0
    window: tuple = (1, 1)


class GroupNorm(NamedTuple):
    """Group norm, then a piecewise linear activation.

    Each of `groups` groups of channels of an image is normalised. gamma, beta (C,), or
    (C, H, W) if by_position. slope: as for NormActPool.
    """

    C: int
    H: int
    W: int
    groups: int
    eps: float
    gamma: int
    beta: int
    by_position: bool = False
    slope: float = 1.0


class Activate(NamedTuple):
    """An elementwise function of `size` numbers.

    function: a number of activation/functions.py; slope: LEAKY's slope or ELU's alpha.
    """

    size: int
    function: int
    slope: float = 0.0


class MaxPool(NamedTuple):
    """The maximum over windows."""

    C: int
    H: int
    W: int
    Ho: int
    Wo: int
    window: tuple
    stride: tuple


class Average(NamedTuple):
    """The mean over windows."""

    C: int
    H: int
    W: int
    Ho: int
    Wo: int
    window: tuple
    stride: tuple


class Flatten(NamedTuple):
    """From channels last to the row-major order of (C, H, W)."""

    C: int
    H: int
    W: int


class Residual(NamedTuple):
    """branch(x) + shortcut(x): operations in order; no shortcut: x itself.

    inputs, outputs: numbers of one x and of one sum.
    """

    branch: tuple
    shortcut: tuple
    inputs: int
    outputs: int


# graph.py makes these of a Residual.


class Sum(NamedTuple):
    """The sum of two values of `size` numbers."""

    size: int


class Fork(NamedTuple):
    """A value of `size` numbers that two operations read."""

    size: int
