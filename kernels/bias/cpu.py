"""A number per channel on a CPU: see reference.py. y comes as (T, M, C), a row of channels for each of its M = N L pixels."""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["bias_forward", "bias_backward"]


@njit(error_model="numpy")
def forward_task(y, b):
    """y (M, C) += b (C,)."""
    row = b.copy()                                                   # neighbours in memory, wherever b lies
    for m in range(len(y)):
        line = y[m]
        for c in range(len(line)):
            line[c] += row[c]


@compiled("pixels+ rows")
def bias_forward(y, b):
    """y += b, broadcast over examples and positions."""
    for t in prange(len(y)):
        forward_task(y[t], b[t % len(b)])


@njit(error_model="numpy")
def backward_task(db, dy):
    """db (C,) = the sum of the rows of dy (M, C), in order."""
    total = np.zeros(dy.shape[1], dy.dtype)
    for m in range(len(dy)):
        line = dy[m]
        for c in range(len(line)):
            total[c] += line[c]
    db[:] = total


@compiled("rows! pixels", grain=0)
def bias_backward(db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l]."""
    for t in prange(len(dy)):
        backward_task(db[t], dy[t])
