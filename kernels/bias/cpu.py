"""A number per channel on a CPU: see reference.py. y comes as (T, M, C), a row of channels for each of its M = N L pixels."""
import numpy as np
from numba import prange

from refmaml.kernels.compiled import compiled

__all__ = ["bias_forward", "bias_backward"]


@compiled("pixels+ rows")
def bias_forward(y, b):
    """y += b, broadcast over examples and positions."""
    T, M, C = y.shape
    for t in prange(T):
        row = np.empty(C, y.dtype)                                   # neighbours in memory, wherever b lies
        for c in range(C):
            row[c] = b[t % len(b), c]
        for m in range(M):
            for c in range(C):
                y[t, m, c] += row[c]


@compiled("rows! pixels", grain=0)
def bias_backward(db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l]."""
    T, M, C = dy.shape
    for t in prange(T):
        total = np.zeros(C)                                          # float64: a thousand float32 additions in a row lose a digit
        for m in range(M):
            for c in range(C):
                total[c] += dy[t, m, c]
        for c in range(C):
            db[t, c] = total[c]
