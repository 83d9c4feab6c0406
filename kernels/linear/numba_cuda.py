"""Matrix product for T tasks in Numba CUDA: the formulas are in reference.py.

The kernels have not been run on a GPU yet; the tests run them on Numba's simulator.

A device function computes one element of a product. A kernel calls it once, or twice
for the two terms of an R-pass.
"""

from numba import cuda

from refmaml.kernels.numba_runtime.cuda_launcher import for_each

__all__ = [
    "linear_forward",
    "linear_backward_x",
    "linear_backward_w",
    "linear_r_forward",
    "linear_r_backward_x",
    "linear_r_backward_w",
]


@cuda.jit(device=True)
def y_at(x, w, t, n, o):
    """sum_i x[n,i] w[o,i]"""
    total = 0.0
    for i in range(x.shape[2]):
        total += x[t, n, i] * w[t % len(w), o, i]
    return total


@cuda.jit(device=True)
def dx_at(dy, w, t, n, i):
    """sum_o dy[n,o] w[o,i]"""
    total = 0.0
    for o in range(dy.shape[2]):
        total += dy[t, n, o] * w[t % len(w), o, i]
    return total


@cuda.jit(device=True)
def dw_at(x, dy, t, o, i):
    """sum_n dy[n,o] x[n,i]"""
    total = 0.0
    for n in range(x.shape[1]):
        total += dy[t, n, o] * x[t, n, i]
    return total


def summed(at):
    """The kernel out = at(a, b), plus at(a2, b2) if pairs is 2; a
    thread per element.
    """

    @cuda.jit
    def kernel(out, a, b, a2, b2, pairs):
        t, k = cuda.blockIdx.y, cuda.grid(1)
        if k < out[0].size:
            row, column = k // out.shape[2], k % out.shape[2]
            out[t, row, column] = at(a, b, t, row, column) + (
                at(a2, b2, t, row, column) if pairs == 2 else 0
            )

    return kernel


forward, backward_x, backward_w = summed(y_at), summed(dx_at), summed(dw_at)


def linear_forward(y, x, w):
    """y = x w'."""
    for_each(forward, y[:1].size, [y], [x, w, x, w], 1)


def linear_backward_x(dx, dy, w):
    """dx = dy w."""
    for_each(backward_x, dx[:1].size, [dx], [dy, w, dy, w], 1)


def linear_backward_w(dw, x, dy):
    """dw = dy' x, one per task."""
    for_each(backward_w, dw[:1].size, [dw], [x, dy, x, dy], 1)


def linear_r_forward(ry, x, rx, w, rw):
    """ry = rx w' + x rw'."""
    for_each(forward, ry[:1].size, [ry], [rx, w, x, rw], 2)


def linear_r_backward_x(rdx, dy, rdy, w, rw):
    """rdx = rdy w + dy rw."""
    for_each(backward_x, rdx[:1].size, [rdx], [rdy, w, dy, rw], 2)


def linear_r_backward_w(rdw, x, rx, dy, rdy):
    """rdw = dy' rx + rdy' x, one per task."""
    for_each(backward_w, rdw[:1].size, [rdw], [rx, dy, x, rdy], 2)
