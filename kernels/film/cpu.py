"""Feature-wise linear modulation on a CPU: see reference.py. Arrays come as (T, M, C), a row of channels for each of M = N L pixels."""
import numpy as np
from numba import njit, prange

from refmaml.kernels.compiled import compiled

__all__ = ["film_forward", "film_backward", "film_r_forward", "film_r_backward"]


@njit(error_model="numpy")
def forward_task(y, x, gamma, beta):
    gamma, beta = gamma.copy(), beta.copy()
    for m in range(len(y)):
        for c in range(y.shape[1]):
            y[m, c] = gamma[c] * x[m, c] + beta[c]


@compiled("pixels! pixels rows rows")
def film_forward(y, x, gamma, beta):
    """y = gamma x + beta."""
    for t in prange(len(y)):
        forward_task(y[t], x[t], gamma[t % len(gamma)], beta[t % len(beta)])


@njit(error_model="numpy")
def backward_task(dx, dgamma, dbeta, dy, x, gamma):
    gamma, total, products = gamma.copy(), np.zeros(dy.shape[1], dy.dtype), np.zeros(dy.shape[1], dy.dtype)
    for m in range(len(dy)):
        for c in range(dy.shape[1]):
            dx[m, c] = gamma[c] * dy[m, c]
            products[c] += dy[m, c] * x[m, c]
            total[c] += dy[m, c]
    dgamma[:], dbeta[:] = products, total


@compiled("pixels! rows! rows! pixels pixels rows")
def film_backward(dx, dgamma, dbeta, dy, x, gamma):
    """dx = gamma dy, dgamma = sum dy x, dbeta = sum dy."""
    for t in prange(len(dy)):
        backward_task(dx[t], dgamma[t], dbeta[t], dy[t], x[t], gamma[t % len(gamma)])


@njit(error_model="numpy")
def r_forward_task(ry, x, rx, gamma, rgamma, rbeta):
    gamma, rgamma, rbeta = gamma.copy(), rgamma.copy(), rbeta.copy()
    for m in range(len(ry)):
        for c in range(ry.shape[1]):
            ry[m, c] = gamma[c] * rx[m, c] + rgamma[c] * x[m, c] + rbeta[c]


@compiled("pixels! pixels pixels rows rows rows")
def film_r_forward(ry, x, rx, gamma, rgamma, rbeta):
    """ry = gamma rx + rgamma x + rbeta."""
    for t in prange(len(ry)):
        r_forward_task(ry[t], x[t], rx[t], gamma[t % len(gamma)], rgamma[t % len(rgamma)], rbeta[t % len(rbeta)])


@njit(error_model="numpy")
def r_backward_task(rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    gamma, rgamma = gamma.copy(), rgamma.copy()
    total, products = np.zeros(dy.shape[1], dy.dtype), np.zeros(dy.shape[1], dy.dtype)
    for m in range(len(dy)):
        for c in range(dy.shape[1]):
            rdx[m, c] = gamma[c] * rdy[m, c] + rgamma[c] * dy[m, c]
            products[c] += rdy[m, c] * x[m, c] + dy[m, c] * rx[m, c]
            total[c] += rdy[m, c]
    rdgamma[:], rdbeta[:] = products, total


@compiled("pixels! rows! rows! pixels pixels pixels pixels rows rows")
def film_r_backward(rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    """The product rule on each line of `film_backward`."""
    for t in prange(len(dy)):
        r_backward_task(rdx[t], rdgamma[t], rdbeta[t], dy[t], rdy[t], x[t], rx[t],
                        gamma[t % len(gamma)], rgamma[t % len(rgamma)])
