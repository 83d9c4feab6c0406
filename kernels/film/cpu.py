"""Feature-wise linear modulation on a CPU: the formulas are in reference.py.

Arrays are (T, M, C), a row of channels for each of M = N L pixels.
"""

import numpy as np
from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled

__all__ = ["film_forward", "film_backward", "film_r_forward", "film_r_backward"]


@compiled("pixels! pixels rows rows")
def film_forward(y, x, gamma, beta):
    """y = gamma x + beta."""
    T, M, C = x.shape
    for t in prange(T):
        for m in range(M):
            for c in range(C):
                y[t, m, c] = gamma[t % len(gamma), c] * x[t, m, c] + beta[t % len(beta), c]


@compiled("pixels! rows! rows! pixels pixels rows")
def film_backward(dx, dgamma, dbeta, dy, x, gamma):
    """dx = gamma dy, dgamma = sum dy x, dbeta = sum dy."""
    T, M, C = dy.shape
    for t in prange(T):
        product, total = np.zeros(C), np.zeros(C)  # float64, as in batch_norm/cpu.py
        for m in range(M):
            for c in range(C):
                dx[t, m, c] = gamma[t % len(gamma), c] * dy[t, m, c]
                product[c] += dy[t, m, c] * x[t, m, c]
                total[c] += dy[t, m, c]
        for c in range(C):
            dgamma[t, c], dbeta[t, c] = product[c], total[c]


@compiled("pixels! pixels pixels rows rows rows")
def film_r_forward(ry, x, rx, gamma, rgamma, rbeta):
    """ry = gamma rx + rgamma x + rbeta."""
    T, M, C = x.shape
    for t in prange(T):
        for m in range(M):
            for c in range(C):
                ry[t, m, c] = (
                    gamma[t % len(gamma), c] * rx[t, m, c]
                    + rgamma[t % len(rgamma), c] * x[t, m, c]
                    + rbeta[t % len(rbeta), c]
                )


@compiled("pixels! rows! rows! pixels pixels pixels pixels rows rows")
def film_r_backward(rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    """The product rule on each line of `film_backward`."""
    T, M, C = dy.shape
    for t in prange(T):
        product, total = np.zeros(C), np.zeros(C)  # float64, as in batch_norm/cpu.py
        for m in range(M):
            for c in range(C):
                rdx[t, m, c] = (
                    gamma[t % len(gamma), c] * rdy[t, m, c]
                    + rgamma[t % len(rgamma), c] * dy[t, m, c]
                )
                product[c] += rdy[t, m, c] * x[t, m, c] + dy[t, m, c] * rx[t, m, c]
                total[c] += rdy[t, m, c]
        for c in range(C):
            rdgamma[t, c], rdbeta[t, c] = product[c], total[c]
