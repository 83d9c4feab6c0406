"""Pooling on a CPU: the formulas are in reference.py.

Images are channels last, (T, N, H, W, C). Threads take images; the inner loops run over
channels.
"""

from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = [
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_backward",
    "avg_pool2d_forward",
    "avg_pool2d_backward",
]


def for_winners(function, arguments, **options):
    """winner -> `function` compiled for winners of that size.

    They are int16, or int32 if a window has more than 32767 pixels. arguments: as for
    `compiled`, with {w} for the winners.
    """
    narrow, wide = (
        compiled(arguments.format(w=layout), **options)(function)
        for layout in ("winners", "winners32")
    )
    return lambda winner: wide if winner.dtype.itemsize > 2 else narrow


@inner()
def max_forward_image(y, winner, x, window, stride):
    """`max_pool2d_forward` of one image; the other *_image functions likewise."""
    Ho, Wo, C = y.shape
    (kH, kW), (sH, sW) = window, stride
    for i in range(Ho):
        for j in range(Wo):
            best, best_tap = y[i, j], winner[i, j]
            first = x[sH * i, sW * j]
            for c in range(C):
                best[c] = first[c]
                best_tap[c] = 0
            for p in range(kH):
                for q in range(kW):
                    value, tap = x[sH * i + p, sW * j + q], winner.dtype.type(p * kW + q)
                    for c in range(C):
                        better = value[c] > best[c] or (value[c] != value[c] and best[c] == best[c])
                        best[c] = value[c] if better else best[c]
                        best_tap[c] = tap if better else best_tap[c]


def max_forward_images(y, winner, x, window, stride):
    """`max_pool2d_forward` of all images."""
    T, N = y.shape[:2]
    for image in prange(T * N):
        max_forward_image(
            y[image // N, image % N],
            winner[image // N, image % N],
            x[image // N, image % N],
            window,
            stride,
        )


max_forward = for_winners(max_forward_images, "images! {w}! images pair pair")


def max_pool2d_forward(y, winner, x, window, stride):
    """Fills y and the winner of each window, as the tap p kW + q.

    The first of equals wins; NaN wins over every number.
    """
    max_forward(winner)(y, winner, x, window, stride)


@inner()
def gather_image(ry, winner, rx, window, stride):
    Ho, Wo, C = ry.shape
    for i in range(Ho):
        for j in range(Wo):
            for c in range(C):
                tap = winner[i, j, c]
                ry[i, j, c] = rx[
                    stride[0] * i + tap // window[1], stride[1] * j + tap % window[1], c
                ]


def max_gather_images(ry, winner, rx, window, stride):
    """`max_pool2d_gather` of all images."""
    T, N = ry.shape[:2]
    for image in prange(T * N):
        gather_image(
            ry[image // N, image % N],
            winner[image // N, image % N],
            rx[image // N, image % N],
            window,
            stride,
        )


max_gather = for_winners(max_gather_images, "images! {w} images pair pair")


def max_pool2d_gather(ry, winner, rx, window, stride):
    """ry = rx at the winners."""
    max_gather(winner)(ry, winner, rx, window, stride)


@inner()
def max_backward_image(dx, winner, dy, window, stride):
    Ho, Wo, C = dy.shape
    (kH, kW), (sH, sW), zero = window, stride, dx.dtype.type(0)
    dx[...] = 0
    for i in range(Ho):
        for j in range(Wo):
            adjoint, won = dy[i, j], winner[i, j]
            for p in range(kH):
                for q in range(kW):
                    target, tap = dx[sH * i + p, sW * j + q], winner.dtype.type(p * kW + q)
                    for c in range(C):
                        target[c] += adjoint[c] if won[c] == tap else zero


def max_backward_images(dx, winner, dy, window, stride):
    """`max_pool2d_backward` of all images."""
    T, N = dx.shape[:2]
    for image in prange(T * N):
        max_backward_image(
            dx[image // N, image % N],
            winner[image // N, image % N],
            dy[image // N, image % N],
            window,
            stride,
        )


max_backward = for_winners(max_backward_images, "images! {w} images pair pair", grain=4096)


def max_pool2d_backward(dx, winner, dy, window, stride):
    """dx = dy at the winners, summed where windows overlap."""
    max_backward(winner)(dx, winner, dy, window, stride)


@inner()
def avg_forward_image(y, x, window, stride):
    Ho, Wo, C = y.shape
    (kH, kW), (sH, sW), size = window, stride, y.dtype.type(window[0] * window[1])
    for i in range(Ho):
        for j in range(Wo):
            total = y[i, j]
            total[:] = 0
            for p in range(kH):
                for q in range(kW):
                    value = x[sH * i + p, sW * j + q]
                    for c in range(C):
                        total[c] += value[c]
            for c in range(C):
                total[c] /= size


@compiled("images! images pair pair", grain=2048)
def avg_pool2d_forward(y, x, window, stride):
    """y = the mean of each window."""
    T, N = y.shape[:2]
    for image in prange(T * N):
        avg_forward_image(y[image // N, image % N], x[image // N, image % N], window, stride)


@inner()
def avg_backward_image(dx, dy, window, stride):
    Ho, Wo, C = dy.shape
    (kH, kW), (sH, sW), size = window, stride, dx.dtype.type(window[0] * window[1])
    dx[...] = 0
    for i in range(Ho):
        for j in range(Wo):
            adjoint = dy[i, j]
            for p in range(kH):
                for q in range(kW):
                    target = dx[sH * i + p, sW * j + q]
                    for c in range(C):
                        target[c] += adjoint[c] / size


@compiled("images! images pair pair")
def avg_pool2d_backward(dx, dy, window, stride):
    """dx = each dy spread evenly over its window."""
    T, N = dx.shape[:2]
    for image in prange(T * N):
        avg_backward_image(dx[image // N, image % N], dy[image // N, image % N], window, stride)
