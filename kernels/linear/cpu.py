"""Matrix product for T tasks on a CPU: see reference.py. One single-threaded BLAS product per task; threads take tasks.

The R-passes are sums of two products, each one product of twice the size: [rx, x] [w, rw]', [rdy, dy] [w; rw], [dy; rdy]' [rx; x].
"""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["linear_forward", "linear_backward_x", "linear_backward_w",
           "linear_r_forward", "linear_r_backward_x", "linear_r_backward_w"]


@njit(error_model="numpy")
def paste(target, row, column, source):
    """The block of `target` from (row, column) on = the matrix `source`."""
    for r in range(source.shape[0]):
        line = target[row + r]
        for c in range(source.shape[1]):
            line[column + c] = source[r, c]


@njit(error_model="numpy")
def paste_row(target, row, column, source, columns):
    """The block of `target` from (row, column) on = a matrix of so many columns, given in a row."""
    for r in range(len(source) // columns):
        line = target[row + r]
        for c in range(columns):
            line[column + c] = source[r * columns + c]


@njit(error_model="numpy")
def forward_task(y, x, x2, w, w2, parts):
    """y = [x, x2] [w, w2]'."""
    N, I = x.shape
    O = y.shape[1]
    side, wm = np.empty((N, parts * I), y.dtype), np.empty((O, parts * I), y.dtype)
    paste(side, 0, 0, x)
    paste_row(wm, 0, 0, w, I)
    if parts == 2:
        paste(side, 0, I, x2)
        paste_row(wm, 0, I, w2, I)
    np.dot(side, wm.T, y)


@compiled("table! table table rows rows whole", blas=True, grain=4096)
def forward(y, x, x2, w, w2, parts):
    """y = x w' + x2 w2'."""
    for t in prange(len(y)):
        forward_task(y[t], x[t], x2[t], w[t % len(w)], w2[t % len(w2)], parts)


@njit(error_model="numpy")
def backward_x_task(dx, dy, dy2, w, w2, parts):
    """dx = [dy, dy2] [w; w2]."""
    N, O = dy.shape
    I = dx.shape[1]
    side, wm = np.empty((N, parts * O), dx.dtype), np.empty((parts * O, I), dx.dtype)
    paste(side, 0, 0, dy)
    paste_row(wm, 0, 0, w, I)
    if parts == 2:
        paste(side, 0, O, dy2)
        paste_row(wm, O, 0, w2, I)
    np.dot(side, wm, dx)


@compiled("table! table table rows rows whole", blas=True, grain=4096)
def backward_x(dx, dy, dy2, w, w2, parts):
    """dx = dy w + dy2 w2."""
    for t in prange(len(dx)):
        backward_x_task(dx[t], dy[t], dy2[t], w[t % len(w)], w2[t % len(w2)], parts)


@njit(error_model="numpy")
def backward_w_task(dw, x, x2, dy, dy2, parts):
    """dw = [dy; dy2]' [x; x2]."""
    (N, I), O = x.shape, dy.shape[1]
    above, side, dwm = np.empty((parts * N, I), x.dtype), np.empty((parts * N, O), x.dtype), np.empty((O, I), x.dtype)
    paste(above, 0, 0, x)
    paste(side, 0, 0, dy)
    if parts == 2:
        paste(above, N, 0, x2)
        paste(side, N, 0, dy2)
    np.dot(side.T, above, dwm)
    for o in range(O):
        for i in range(I):
            dw[o * I + i] = dwm[o, i]


@compiled("rows! table table table table whole", blas=True, grain=4096)
def backward_w(dw, x, x2, dy, dy2, parts):
    """dw = dy' x + dy2' x2, one per task."""
    for t in prange(len(dw)):
        backward_w_task(dw[t], x[t], x2[t], dy[t], dy2[t], parts)


def linear_forward(y, x, w):
    """y = x w'."""
    forward(y, x, x, w, w, 1)


def linear_backward_x(dx, dy, w):
    """dx = dy w."""
    backward_x(dx, dy, dy, w, w, 1)


def linear_backward_w(dw, x, dy):
    """dw = dy' x, one per task."""
    backward_w(dw, x, x, dy, dy, 1)


def linear_r_forward(ry, x, rx, w, rw):
    """ry = rx w' + x rw'."""
    forward(ry, rx, x, w, rw, 2)


def linear_r_backward_x(rdx, dy, rdy, w, rw):
    """rdx = rdy w + dy rw."""
    backward_x(rdx, rdy, dy, w, rw, 2)


def linear_r_backward_w(rdw, x, rx, dy, rdy):
    """rdw = dy' rx + rdy' x, one per task."""
    backward_w(rdw, rx, x, dy, rdy, 2)
