"""A number per channel on a CPU: see reference.py. y comes as (T, M, C), a row of channels for each of its M = N L pixels."""
import numpy as np
from numba import prange

from refmaml.kernels.compiled import compiled
from refmaml.kernels.sums import add_rows

__all__ = ["bias_forward", "bias_backward"]


@compiled("pixels+ rows")
def bias_forward(y, b):
    """y += b."""
    T, M, C = y.shape
    for t in prange(T):
        for m in range(M):
            for c in range(C):
                y[t, m, c] += b[t % len(b), c]
