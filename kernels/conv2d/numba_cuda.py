"""2-D convolution in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.

A device function computes one element of a product. A kernel calls it once, or twice
for the two terms of an R-pass. Four numbers give the geometry: the stride sH, sW, and
the padding at the top and the left. The padding at the far ends follows from the
extents.
"""

from numba import cuda

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
def y_at(x, w, t, n, o, a, b, sH, sW, top, left):
    """sum_{c,p,q} w[o,c,p,q] x[n,c, sH a + p - top, sW b + q - left] over the pixels in
    the image.
    """
    C, H, W = x.shape[2:]
    total = 0.0
    for c in range(C):
        for p in range(w.shape[3]):
            for q in range(w.shape[4]):
                i, j = sH * a + p - top, sW * b + q - left
                if 0 <= i < H and 0 <= j < W:
                    total += w[t % len(w), o, c, p, q] * x[t, n, c, i, j]
    return total


@cuda.jit(device=True)
def dx_at(dy, w, t, n, c, i, j, sH, sW, top, left):
    """The sum of w[o,c,p,q] dy[n,o,a,b] over the positions (a, b) that see pixel (i, j)
    through tap (p, q): sH a = i + top - p, sW b = j + left - q."""
    O, Ho, Wo = dy.shape[2:]
    total = 0.0
    for o in range(O):
        for p in range(w.shape[3]):
            for q in range(w.shape[4]):
                down, right = i + top - p, j + left - q
                if (
                    down >= 0
                    and right >= 0
                    and down % sH == 0
                    and right % sW == 0
                    and down // sH < Ho
                    and right // sW < Wo
                ):
                    total += w[t % len(w), o, c, p, q] * dy[t, n, o, down // sH, right // sW]
    return total


@cuda.jit(device=True)
def dw_at(x, dy, t, o, c, p, q, sH, sW, top, left):
    """sum_{n,a,b} dy[n,o,a,b] x[n,c, sH a + p - top, sW b + q - left], over the pixels
    in the image.
    """
    H, W = x.shape[3:]
    total = 0.0
    for n in range(x.shape[1]):
        for a in range(dy.shape[3]):
            for b in range(dy.shape[4]):
                i, j = sH * a + p - top, sW * b + q - left
                if 0 <= i < H and 0 <= j < W:
                    total += dy[t, n, o, a, b] * x[t, n, c, i, j]
    return total


def summed(at):
    """The kernel out = at(a, b), plus at(a2, b2) if pairs is 2; a
    thread per element.
    """

    @cuda.jit
    def kernel(out, a, b, a2, b2, pairs, sH, sW, top, left):
        t, k = cuda.blockIdx.y, cuda.grid(1)
        if k < out[0].size:
            i0, i1, i2, i3 = unravel(k, out.shape[1:])
            total = at(a, b, t, i0, i1, i2, i3, sH, sW, top, left)
            if pairs == 2:
                total += at(a2, b2, t, i0, i1, i2, i3, sH, sW, top, left)
            out[t, i0, i1, i2, i3] = total

    return kernel


forward, backward_x, backward_w = summed(y_at), summed(dx_at), summed(dw_at)


def product(kernel, out, first, second, stride, padding):
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
    )


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    product(forward, y, (x, w), None, stride, padding)


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    product(backward_x, dx, (dy, w), None, stride, padding)


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    product(backward_w, dw, (x, dy), None, stride, padding)


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    product(forward, ry, (rx, w), (x, rw), stride, padding)


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    product(backward_x, rdx, (rdy, w), (dy, rw), stride, padding)


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    product(backward_w, rdw, (rx, dy), (x, rdy), stride, padding)
