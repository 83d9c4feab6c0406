"""A number per channel on a CPU: the formulas are in reference.py.

y is (T, M, C), a row of channels for each of its M = N L pixels.
"""

import numpy as np
from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inlined

__all__ = ["bias_forward", "bias_backward"]


@inlined()
def task_forward(y, b):
    """One task: y (M, C) += b."""
    row = np.empty(len(b), y.dtype)  # contiguous, whatever the strides of b
    for c in range(len(b)):
        row[c] = b[c]
    for m in range(len(y)):
        for c in range(len(b)):
            y[m, c] += row[c]


@inlined()
def task_backward(db, dy):
    """One task: db = sum of dy (M, C) over its pixels."""
    total = np.zeros(len(db))  # float64: a thousand float32 additions in a row lose a digit
    for m in range(len(dy)):
        for c in range(len(db)):
            total[c] += dy[m, c]
    for c in range(len(db)):
        db[c] = total[c]


@compiled("pixels+ rows")
def bias_forward(y, b):
    """y += b, broadcast over examples and positions."""
    for t in prange(len(y)):
        task_forward(y[t], b[t % len(b)])


@compiled("rows! pixels", grain=0)
def bias_backward(db, dy):
    """db[t,c] = sum_{n,l} dy[t,n,c,l]."""
    for t in prange(len(dy)):
        task_backward(db[t], dy[t])
