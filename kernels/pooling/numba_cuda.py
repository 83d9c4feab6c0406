"""Pooling in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.

A thread for each result. In the backward pass a thread computes one pixel of dx from
the windows that contain it, so no two threads write to one address.
"""

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each, unravel

__all__ = [
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_backward",
    "avg_pool2d_forward",
    "avg_pool2d_backward",
]


@cuda.jit
def max_forward(y, winner, x, kH, kW, sH, sW):
    """y, and the tap p kW + q of the winner.

    The first of equals wins; NaN, which differs from itself, wins over every number.
    """
    t, k = cuda.blockIdx.y, cuda.grid(1)
    if k < y[0].size:
        n, c, a, b = unravel(k, y.shape[1:])
        best, tap = x[t, n, c, a * sH, b * sW], 0
        for p in range(kH):
            for q in range(kW):
                value = x[t, n, c, a * sH + p, b * sW + q]
                if value > best or (value != value and best == best):
                    best, tap = value, p * kW + q
        y[t, n, c, a, b] = best
        winner[t, n, c, a, b] = tap


@cuda.jit
def max_gather(ry, winner, rx, kH, kW, sH, sW):
    """ry = rx at the winners."""
    t, k = cuda.blockIdx.y, cuda.grid(1)
    if k < ry[0].size:
        n, c, a, b = unravel(k, ry.shape[1:])
        tap = winner[t, n, c, a, b]
        ry[t, n, c, a, b] = rx[t, n, c, a * sH + tap // kW, b * sW + tap % kW]


@cuda.jit
def avg_forward(y, x, kH, kW, sH, sW):
    """y = the mean of each window."""
    t, k = cuda.blockIdx.y, cuda.grid(1)
    if k < y[0].size:
        n, c, a, b = unravel(k, y.shape[1:])
        total = 0.0
        for p in range(kH):
            for q in range(kW):
                total += x[t, n, c, a * sH + p, b * sW + q]
        y[t, n, c, a, b] = total / (kH * kW)


@cuda.jit(device=True)
def if_winner(winner, dy, t, n, c, a, b, tap, taps):
    """dy of a window if the pixel at this tap won, else 0."""
    return dy[t, n, c, a, b] if winner[t, n, c, a, b] == tap else 0.0


@cuda.jit(device=True)
def equal_share(winner, dy, t, n, c, a, b, tap, taps):
    """An equal share of dy of a window."""
    return dy[t, n, c, a, b] / taps


def gathered(term):
    """The kernel dx = the sum of `term` over the windows (a, b) that contain the pixel.

    They are those with 0 <= i - a sH < kH, and likewise for j.
    """

    @cuda.jit
    def kernel(dx, winner, dy, kH, kW, sH, sW):
        t, k = cuda.blockIdx.y, cuda.grid(1)
        if k < dx[0].size:
            n, c, i, j = unravel(k, dx.shape[1:])
            total = 0.0
            for p in range(kH):
                for q in range(kW):
                    if i >= p and j >= q and (i - p) % sH == 0 and (j - q) % sW == 0:
                        a, b = (i - p) // sH, (j - q) // sW
                        if a < dy.shape[3] and b < dy.shape[4]:
                            total += term(winner, dy, t, n, c, a, b, p * kW + q, kH * kW)
            dx[t, n, c, i, j] = total

    return kernel


max_backward, avg_backward = gathered(if_winner), gathered(equal_share)


def max_pool2d_forward(y, winner, x, window, stride):
    """Fills y and the winner of each window, as the tap p kW + q."""
    for_each(max_forward, y[:1].size, [y, winner], [x], *window, *stride)


def max_pool2d_gather(ry, winner, rx, window, stride):
    """ry = rx at the winners."""
    for_each(max_gather, ry[:1].size, [ry], [winner, rx], *window, *stride)


def max_pool2d_backward(dx, winner, dy, window, stride):
    """dx = dy at the winners, summed where windows overlap."""
    for_each(max_backward, dx[:1].size, [dx], [winner, dy], *window, *stride)


def avg_pool2d_forward(y, x, window, stride):
    """y = the mean of each window."""
    for_each(avg_forward, y[:1].size, [y], [x], *window, *stride)


def avg_pool2d_backward(dx, dy, window, stride):
    """dx = each dy spread evenly over its window."""
    for_each(avg_backward, dx[:1].size, [dx], [dy, dy], *window, *stride)
