"""Pooling on a GPU, by the kernels of pooling.cu.

Not run on a GPU yet.
"""

from refmaml.kernels.pooling.reference import expect_wide_enough

__all__ = [
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_backward",
    "avg_pool2d_forward",
    "avg_pool2d_backward",
]

SUFFIX = {"int16": "", "int32": "_int32"}  # of the kernels that keep winners in that type


def over_windows(launch, kernel, outputs, inputs, x, y, window, stride):
    """One thread for each number of the first output.

    x, y  arrays of the shapes of the images and of the windows
    """
    extents = x.shape[1] * x.shape[2], *x.shape[3:], *y.shape[3:], *window, *stride
    launch.elements("pooling", kernel, outputs, inputs, *extents)


def kernel_for(name, winner):
    """The kernel for the integer type of `winner`; ValueError if there is none."""
    if winner.dtype.name not in SUFFIX:
        raise ValueError(f"winner: expected int16 or int32, got {winner.dtype}")
    return name + SUFFIX[winner.dtype.name]


def max_pool2d_forward(launch, y, winner, x, window, stride):
    """Fills y and `winner`, the place p kW + q of the maximum (int16 or int32).

    Raises ValueError if the integer type of `winner` is too narrow.
    """
    kernel = kernel_for("max_pool2d_forward", winner)
    expect_wide_enough(winner, window)
    over_windows(launch, kernel, [y, winner], [x], x, y, window, stride)


def max_pool2d_gather(launch, ry, winner, rx, window, stride):
    """ry = rx at the places of the winners."""
    kernel = kernel_for("max_pool2d_gather", winner)
    over_windows(launch, kernel, [ry], [winner, rx], rx, ry, window, stride)


def max_pool2d_backward(launch, dx, winner, dy, window, stride):
    """dx = dy at the places of the winners, summed where windows overlap."""
    kernel = kernel_for("max_pool2d_backward", winner)
    over_windows(launch, kernel, [dx], [winner, dy], dx, dy, window, stride)


def avg_pool2d_forward(launch, y, x, window, stride):
    """y = the mean of each window."""
    over_windows(launch, "avg_pool2d_forward", [y], [x], x, y, window, stride)


def avg_pool2d_backward(launch, dx, dy, window, stride):
    """dx = each dy divided evenly among the pixels of its window."""
    over_windows(launch, "avg_pool2d_backward", [dx], [dy], dx, dy, window, stride)
