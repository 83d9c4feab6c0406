"""Pooling on a GPU: see reference.py for what is computed, pooling.cu for how. Never run on one yet."""

__all__ = [
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_backward",
    "avg_pool2d_forward",
    "avg_pool2d_backward",
]


def over_windows(launch, kernel, outputs, inputs, x, y, window, stride):
    """A thread for each number of the first output; x and y say what the images and what the windows are."""
    launch.elements(
        "pooling",
        kernel,
        outputs,
        inputs,
        x.shape[1] * x.shape[2],
        *x.shape[3:],
        *y.shape[3:],
        *window,
        *stride,
    )


def max_pool2d_forward(launch, y, winner, x, window, stride):
    """Fills y and, as the place p kW + q in its window, who won (int16)."""
    over_windows(launch, "max_pool2d_forward", [y, winner], [x], x, y, window, stride)


def max_pool2d_gather(launch, ry, winner, rx, window, stride):
    """ry = the values of rx at the winners' places."""
    over_windows(launch, "max_pool2d_gather", [ry], [winner, rx], rx, ry, window, stride)


def max_pool2d_backward(launch, dx, winner, dy, window, stride):
    """dx = dy at the winners' places, summed where windows overlap."""
    over_windows(launch, "max_pool2d_backward", [dx], [winner, dy], dx, dy, window, stride)


def avg_pool2d_forward(launch, y, x, window, stride):
    """y = the mean of each window."""
    over_windows(launch, "avg_pool2d_forward", [y], [x], x, y, window, stride)


def avg_pool2d_backward(launch, dx, dy, window, stride):
    """dx = each dy spread evenly over its window."""
    over_windows(launch, "avg_pool2d_backward", [dx], [dy], dx, dy, window, stride)
