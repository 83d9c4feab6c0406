"""Matrix product for T tasks on a CPU: the formulas are in reference.py.

The products are sums of outer products (gemm_microkernel.py). Threads take tasks.

    forward      y[n]  += sum_i x[n, i] w'[i]          w' = w transposed: rows i of O
                 numbers
    backward_x   dx[n] += sum_o dy[n, o] w[o]
    backward_w   dw[o] += sum_n dy[n, o] x[n]

Versions, and microseconds per task of forward and backward through a net 1-40-40-1,
with 10 examples, float32, one thread:
  v1  reference.py: NumPy's matmul                              (not comparable: all
      tasks
                                                                in one call)
  v2  the convolution's kernel on images of one pixel           24
  v3  this: no lists of pixels, no reordered weights but w'     13
"""

from functools import lru_cache

import numpy as np
from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.gemm_microkernel import accumulate
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.numba_runtime.transpose import transpose
from refmaml.kernels.numba_runtime.unowned_views import part

__all__ = [
    "linear_forward",
    "linear_backward_x",
    "linear_backward_w",
    "linear_r_forward",
    "linear_r_backward_x",
    "linear_r_backward_w",
]


@lru_cache(maxsize=512)
def offsets(N, I, O):
    """Where rows and columns of x (N, I), y (N, O), w (O, I) and w' (I, O) begin.

    One flat array of int64: N I O 0, then n I, n O for n < N; i, i O for i < I; o, o I
    for o < O.
    """
    n, i, o = np.arange(N), np.arange(I), np.arange(O)
    return np.concatenate([[N, I, O, 0], n * I, n * O, i, i * O, o, o * I]).astype(np.int64)


@inlined()
def lists(block):
    """(N, I, O, 0, n I, n O, i, i O, o, o I) of a block.

    The 0 comes from the block, because Numba would compile again for a constant.
    """
    N, I, O, at = block[0], block[1], block[2], 4
    nI, at = part(block, at, at + N), at + N
    nO, at = part(block, at, at + N), at + N
    i, at = part(block, at, at + I), at + I
    iO, at = part(block, at, at + I), at + I
    o, oI = part(block, at, at + O), part(block, at + O, at + 2 * O)
    return N, I, O, block[3], nI, nO, i, iO, o, oI


@inner()
def transposed(wt, w, block):
    """Fills w' from w."""
    _, _, _, _, _, _, _, iO, _, oI = lists(block)
    transpose((wt, iO, w, oI))


@inlined()
def task_forward(y, x, x2, wt, wt2, block):
    """y = x w', plus x2 w2' unless x2 is empty."""
    N, I, O, zero, nI, nO, i, iO, _, _ = lists(block)
    accumulate((y, x, wt, nO, nI, zero, N, i, iO, zero, I, O, N > 0))
    if len(x2) > 0:
        accumulate((y, x2, wt2, nO, nI, zero, N, i, iO, zero, I, O, N < 0))


@inlined()
def task_backward_x(dx, dy, dy2, w, w2, block):
    """dx = dy w, plus dy2 w2 unless dy2 is empty."""
    N, I, O, zero, nI, nO, _, _, o, oI = lists(block)
    accumulate((dx, dy, w, nI, nO, zero, N, o, oI, zero, O, I, N > 0))
    if len(dy2) > 0:
        accumulate((dx, dy2, w2, nI, nO, zero, N, o, oI, zero, O, I, N < 0))


@inlined()
def task_backward_w(dw, x, x2, dy, dy2, block):
    """dw = dy' x, plus dy2' x2 unless x2 is empty."""
    N, I, O, zero, nI, nO, _, _, o, oI = lists(block)
    accumulate((dw, dy, x, oI, o, zero, O, nO, nI, zero, N, I, N > 0))
    if len(x2) > 0:
        accumulate((dw, dy2, x2, oI, o, zero, O, nO, nI, zero, N, I, N < 0))


# ---- all tasks -----------------------------------------------------------------------


@compiled("rows! rows rows rows rows offsets", grain=512)
def forward(y, x, x2, w, w2, block):
    for t in prange(len(y)):
        wt, wt2 = np.empty(w.shape[1], y.dtype), np.empty(w2.shape[1], y.dtype)
        transposed(wt, w[t % len(w)], block)
        if w2.shape[1] > 0:
            transposed(wt2, w2[t % len(w2)], block)
        task_forward(y[t], x[t], x2[t], wt, wt2, block)


@compiled("rows! rows rows rows rows offsets", grain=512)
def backward_x(dx, dy, dy2, w, w2, block):
    for t in prange(len(dx)):
        task_backward_x(dx[t], dy[t], dy2[t], w[t % len(w)], w2[t % len(w2)], block)


@compiled("rows! rows rows rows rows offsets", grain=512)
def backward_w(dw, x, x2, dy, dy2, block):
    for t in prange(len(dw)):
        task_backward_w(dw[t], x[t], x2[t], dy[t], dy2[t], block)


def empty_rows(a):
    """An array of as many rows as `a`, all empty: there is no second product."""
    return a.reshape(len(a), -1)[:, :0]


def linear_forward(y, x, w):
    """y = x w'."""
    forward(y, x, empty_rows(x), w, empty_rows(w), offsets(x.shape[1], x.shape[2], y.shape[2]))


def linear_backward_x(dx, dy, w):
    """dx = dy w."""
    backward_x(
        dx, dy, empty_rows(dy), w, empty_rows(w), offsets(dx.shape[1], dx.shape[2], dy.shape[2])
    )


def linear_backward_w(dw, x, dy):
    """dw = dy' x, one per task."""
    backward_w(
        dw, x, empty_rows(x), dy, empty_rows(dy), offsets(x.shape[1], x.shape[2], dy.shape[2])
    )


def linear_r_forward(ry, x, rx, w, rw):
    """ry = rx w' + x rw'."""
    forward(ry, rx, x, w, rw, offsets(x.shape[1], x.shape[2], ry.shape[2]))


def linear_r_backward_x(rdx, dy, rdy, w, rw):
    """rdx = rdy w + dy rw."""
    backward_x(rdx, rdy, dy, w, rw, offsets(rdx.shape[1], rdx.shape[2], dy.shape[2]))


def linear_r_backward_w(rdw, x, rx, dy, rdy):
    """rdw = dy' rx + rdy' x, one per task."""
    backward_w(rdw, rx, x, dy, rdy, offsets(x.shape[1], x.shape[2], dy.shape[2]))
