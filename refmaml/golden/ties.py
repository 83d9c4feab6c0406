"""A net and a task with ties: equal values in a pooling window, and ReLUs at exactly 0.

At a tie the derivative is a convention. Two right implementations with different
conventions differ there, and only there. The first task of this problem has ties at
theta; all its other points, and the other tasks, have none.

The filters are 1 x 2: [w, w] and [u, -u]. Pixels a, b, a give the patches (a, b) and
(b, a), for which [w, w] has the same value; pixels c, c give u c - u c = 0. All these
numbers have few binary digits, so that the ties are exact in float32, in float64 and in
any order of the sums. The patches differ, so the choice changes the gradient of the
filters, and the next step breaks the tie.
"""

from refmaml.execution import Sequential
from refmaml.layers import Conv2d, CrossEntropy, Flatten, Linear, MaxPool2d, ReLU

RULE = (
    "task 0 has ties at theta on its support set. Max-pooling: of equal values in a "
    "window, the first in row order (the upper row first, then the left column) gets the "
    "whole adjoint. ReLU: the derivative at 0 is 0. The tangents ry and rdy follow the "
    "same choices. Tasks 1 and 2 have no ties: an implementation with another convention "
    "must agree on them"
)
TIED = 1  # the number of tasks that have ties: the first ones


def ties_net():
    """Convolution with 1 x 2 filters, ReLU, max-pooling, linear; no batch-norm.

    Batch-norm's roundings would break the ties.
    """
    return Sequential(
        [Conv2d(1, 2, (1, 2)), ReLU(), MaxPool2d(2), Flatten(), Linear(12, 3)],
        CrossEntropy(),
        (1, 4, 7),
    )


def plant(net, theta, batch):
    """Write ties into theta (P,) and into the support images of the first task.

    a, b, a in the first row ties two places of one row: first against last. a, b one
    row above b, a ties two rows: row order against column order. c, c is the first
    place of a window in which [u, -u] has negative values elsewhere, so that an adjoint
    arrives at this 0.
    """
    filters = net.parameters.views(theta[None])[0]
    w, b = filters["weight"][0], filters["bias"][0]  # (2, 1, 1, 2), (2,)
    w[0, 0, 0] = [0.75, 0.75]
    w[1, 0, 0] = [0.625, -0.625]
    b[:] = [0.125, 0]
    images = batch.x_support[0, :, 0]  # (N, 4, 7)
    for n, image in enumerate(images):
        a, b, c = 3 + n / 8, 2.5 - n / 8, 1 + n / 4
        image[0, :3] = [a, b, a]
        image[2, 1:3] = [a, b]
        image[3, :2] = [b, a]
        image[0, 4:] = [c, c, c + 1]
        image[1, 4:] = [-1, 0, 1]
    images *= 0.25  # large pixels would give curvatures that iMAML's system cannot take
