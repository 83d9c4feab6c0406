"""2-D convolution in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.

A device function computes one element of a product. A kernel calls it once, or twice
for the two terms of an R-pass. Seven numbers give the geometry: the stride sH, sW, the
padding at the top and the left, the dilation dH, dW, and the number G of groups. The
padding at the far ends follows from the extents. Filters are (O, C / G, kH, kW): c
counts the channels of one group there, and all channels in x.
"""

from numba import cuda

from refmaml.kernels.conv2d.groups import groups
from refmaml.kernels.numba_runtime.cuda_launcher import for_each, unravel

__all__ = [
    "conv2d_forward",
    "conv2d_backward_x",
    "conv2d_backward_w",
    "conv2d_r_forward",
    "conv2d_r_backward_x",
    "conv2d_r_backward_w",
]


@cuda.jit(device=True)
def y_at(x, w, t, n, o, a, b, sH, sW, top, left, dH, dW, G):
    """sum_{c,p,q} w[o,c,p,q] x[n,c, sH a + dH p - top, sW b + dW q - left] over the
    pixels in the image, and over the channels c of the group of o.
    """
    H, W = x.shape[3:]
    O, c_group = w.shape[1:3]
    first = o // (O // G) * c_group
    total = 0.0
    for c in range(c_group):
        for p in range(w.shape[3]):
            for q in range(w.shape[4]):
                i, j = sH * a + dH * p - top, sW * b + dW * q - left
                if 0 <= i < H and 0 <= j < W:
                    total += w[t % len(w), o, c, p, q] * x[t, n, first + c, i, j]
    return total


@cuda.jit(device=True)
def dx_at(dy, w, t, n, c, i, j, sH, sW, top, left, dH, dW, G):
    """The sum of w[o,c,p,q] dy[n,o,a,b] over the outputs o of the group of c and the
    positions (a, b) that see pixel (i, j) through tap (p, q): sH a = i + top - dH p,
    sW b = j + left - dW q."""
    O, Ho, Wo = dy.shape[2:]
    c_group, o_group = w.shape[2], O // G
    first = c // c_group * o_group
    total = 0.0
    for o in range(first, first + o_group):
        for p in range(w.shape[3]):
            for q in range(w.shape[4]):
                down, right = i + top - dH * p, j + left - dW * q
                if (
                    down >= 0
                    and right >= 0
                    and down % sH == 0
                    and right % sW == 0
                    and down // sH < Ho
                    and right // sW < Wo
                ):
                    tap = w[t % len(w), o, c % c_group, p, q]
                    total += tap * dy[t, n, o, down // sH, right // sW]
    return total


@cuda.jit(device=True)
def dw_at(x, dy, t, o, c, p, q, sH, sW, top, left, dH, dW, G):
    """sum_{n,a,b} dy[n,o,a,b] x[n,c, sH a + dH p - top, sW b + dW q - left], over the
    pixels in the image, with c in the group of o.
    """
    C, H, W = x.shape[2:]
    channel = o // (dy.shape[2] // G) * (C // G) + c
    total = 0.0
    for n in range(x.shape[1]):
        for a in range(dy.shape[3]):
            for b in range(dy.shape[4]):
                i, j = sH * a + dH * p - top, sW * b + dW * q - left
                if 0 <= i < H and 0 <= j < W:
                    total += dy[t, n, o, a, b] * x[t, n, channel, i, j]
    return total


def summed(at):
    """The kernel out = at(a, b), plus at(a2, b2) if pairs is 2; a
    thread per element.
    """

    @cuda.jit
    def kernel(out, a, b, a2, b2, pairs, sH, sW, top, left, dH, dW, G):
        t, k = cuda.blockIdx.y, cuda.grid(1)
        if k < out[0].size:
            i0, i1, i2, i3 = unravel(k, out.shape[1:])
            total = at(a, b, t, i0, i1, i2, i3, sH, sW, top, left, dH, dW, G)
            if pairs == 2:
                total += at(a2, b2, t, i0, i1, i2, i3, sH, sW, top, left, dH, dW, G)
            out[t, i0, i1, i2, i3] = total

    return kernel


forward, backward_x, backward_w = summed(y_at), summed(dx_at), summed(dw_at)


def product(kernel, out, first, second, G, stride, padding, dilation):
    """out = the product of the pair `first`, plus that of `second`
    unless it is None.
    """
    for_each(
        kernel,
        out[:1].size,
        [out],
        [*first, *(second or first)],
        2 if second else 1,
        *stride,
        padding[0][0],
        padding[1][0],
        *dilation,
        G,
    )


def conv2d_forward(y, x, w, stride, padding, dilation=(1, 1)):
    """y = conv(x, w)."""
    product(forward, y, (x, w), None, groups(x, w), stride, padding, dilation)


def conv2d_backward_x(dx, dy, w, stride, padding, dilation=(1, 1)):
    """dx = conv_dx(dy, w)."""
    product(backward_x, dx, (dy, w), None, groups(dx, w), stride, padding, dilation)


def conv2d_backward_w(dw, x, dy, stride, padding, dilation=(1, 1)):
    """dw = conv_dw(x, dy), one per task."""
    product(backward_w, dw, (x, dy), None, groups(x, dw), stride, padding, dilation)


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding, dilation=(1, 1)):
    """ry = conv(rx, w) + conv(x, rw)."""
    product(forward, ry, (rx, w), (x, rw), groups(x, w), stride, padding, dilation)


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding, dilation=(1, 1)):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    product(backward_x, rdx, (rdy, w), (dy, rw), groups(rdx, w), stride, padding, dilation)


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding, dilation=(1, 1)):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    product(backward_w, rdw, (rx, dy), (x, rdy), groups(x, rdw), stride, padding, dilation)
