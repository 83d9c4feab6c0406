"""Pooling in Numba CUDA: see reference.py for what is computed. Never run on a GPU yet; tested on Numba's simulator.

A thread for each result. Backwards a thread owns a pixel of dx and gathers from the windows that hold it: no two write to one place.
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
    """y and the place p kW + q of the winner: the first of equals; NaN (the only number unlike itself) wins over everything."""
    t, k = cuda.blockIdx.y, cuda.grid(1)
    if k < y[0].size:
        n, c, a, b = unravel(k, y.shape[1:])
        best, place = x[t, n, c, a * sH, b * sW], 0
        for p in range(kH):
            for q in range(kW):
                value = x[t, n, c, a * sH + p, b * sW + q]
                if value > best or (value != value and best == best):
                    best, place = value, p * kW + q
        y[t, n, c, a, b] = best
        winner[t, n, c, a, b] = place


@cuda.jit
def max_gather(ry, winner, rx, kH, kW, sH, sW):
    """ry = rx at the winners' places."""
    t, k = cuda.blockIdx.y, cuda.grid(1)
    if k < ry[0].size:
        n, c, a, b = unravel(k, ry.shape[1:])
        place = winner[t, n, c, a, b]
        ry[t, n, c, a, b] = rx[t, n, c, a * sH + place // kW, b * sW + place % kW]


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
def won(winner, dy, t, n, c, a, b, place, places):
    """dy of a window, where the pixel at this place of it won."""
    return dy[t, n, c, a, b] if winner[t, n, c, a, b] == place else 0.0


@cuda.jit(device=True)
def share(winner, dy, t, n, c, a, b, place, places):
    """An even share of dy of a window."""
    return dy[t, n, c, a, b] / places


def gathered(term):
    """The kernel dx = the sum of `term` over the windows (a, b) that hold the pixel: those with 0 <= i - a sH < kH, as for j."""

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


max_backward, avg_backward = gathered(won), gathered(share)


def max_pool2d_forward(y, winner, x, window, stride):
    """Fills y and, as the place p kW + q in its window, who won."""
    for_each(max_forward, y[:1].size, [y, winner], [x], *window, *stride)


def max_pool2d_gather(ry, winner, rx, window, stride):
    """ry = the values of rx at the winners' places."""
    for_each(max_gather, ry[:1].size, [ry], [winner, rx], *window, *stride)


def max_pool2d_backward(dx, winner, dy, window, stride):
    """dx = dy at the winners' places, summed where windows overlap."""
    for_each(max_backward, dx[:1].size, [dx], [winner, dy], *window, *stride)


def avg_pool2d_forward(y, x, window, stride):
    """y = the mean of each window."""
    for_each(avg_forward, y[:1].size, [y], [x], *window, *stride)


def avg_pool2d_backward(dx, dy, window, stride):
    """dx = each dy spread evenly over its window."""
    for_each(avg_backward, dx[:1].size, [dx], [dy, dy], *window, *stride)
