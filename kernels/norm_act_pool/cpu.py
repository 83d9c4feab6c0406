"""Batch-norm, a piecewise linear activation and max-pooling in one go on a CPU, for one task: the four passes.

    xh = (x - <x>) s      u = gamma xh + beta      a = u where u > 0, slope u elsewhere      y = max of a over a window

and the passes of the three layers on after each other (batch_norm/reference.py, activation/reference.py, pooling/reference.py), which
remain the reference. What is gained is traffic: between the passes of three layers arrays go to memory and come back; here x
becomes xh where it stands, u and a are never written, and the choice of the activation is read off y: y > 0 where u > 0 won.

Images are rows of channels: x and its kin (N H W, C), y and its kin (N Ho Wo, C). Windows lie side by side; `window` is (1, 1) where nothing is
pooled, and `place` then empty. slope is 0 for ReLU, 1 for no activation. A sum over pixels is a running row of float64 sums, as a
thousand float32 additions in a row would lose a digit; the compiler adds many channels at once, and yet each adds its pixels in order.
"""
import numpy as np
from numba import njit

LEFT_OUT = -1


@njit(error_model="numpy")
def bent(u, slope):
    """The activation; NaN passes through, and 0 times infinity is 0."""
    return u * slope if u <= 0 and slope != 0 else slope if u <= 0 else u


@njit(error_model="numpy")
def statistics(mean, s, x, eps):
    """Fills mean and s = 1 / sqrt(var + eps) of each channel; the variance is of centred values."""
    M, C = x.shape
    total, square = np.zeros(C), np.zeros(C)
    for m in range(M):
        for c in range(C):
            total[c] += x[m, c]
    for c in range(C):
        mean[c] = total[c] / M
    for m in range(M):
        for c in range(C):
            square[c] += (x[m, c] - mean[c]) * (x[m, c] - mean[c])
    for c in range(C):
        s[c] = 1 / np.sqrt(square[c] / M + eps)


@njit(error_model="numpy")
def window_of(m, extents, window):
    """(the window that pixel m lies in, or LEFT_OUT; its place there, p kW + q)."""
    (H, W, Ho, Wo), (kH, kW) = extents, window
    n, i, j = m // (H * W), m // W % H, m % W
    if i // kH >= Ho or j // kW >= Wo:
        return LEFT_OUT, 0
    return (n * Ho + i // kH) * Wo + j // kW, i % kH * kW + j % kW


@njit(error_model="numpy")
def forward(y, place, x, s, gamma, beta, eps, slope, extents, window):
    """Fills y, s, place (who won each window: the first of equals; NaN wins over everything), and makes x to xh."""
    M, C = x.shape
    mean = np.empty(C, x.dtype)
    statistics(mean, s, x, eps)
    for m in range(M):
        w, here = m, 0
        if window != (1, 1):
            w, here = window_of(m, extents, window)
        if w == LEFT_OUT:
            for c in range(C):
                x[m, c] = s[c] * (x[m, c] - mean[c])
        elif here == 0:
            for c in range(C):
                hat = s[c] * (x[m, c] - mean[c])
                x[m, c] = hat
                y[w, c] = bent(gamma[c] * hat + beta[c], slope)
            if window != (1, 1):
                place[w] = 0
        else:
            for c in range(C):
                hat = s[c] * (x[m, c] - mean[c])
                x[m, c] = hat
                a, best = bent(gamma[c] * hat + beta[c], slope), y[w, c]
                better = a > best or (a != a and best == best)
                y[w, c] = a if better else best
                place[w, c] = here if better else place[w, c]


@njit(error_model="numpy")
def backward(dx, dgamma, dbeta, dy, y, place, xh, s, gamma, slope, extents, window):
    """Fills dx (which may be xh itself), dgamma = sum du xh, dbeta = sum du, and makes dy to the adjoint du of the u that won."""
    M, C = xh.shape
    total, product = np.zeros(C), np.zeros(C)
    for w in range(len(y)):
        for c in range(C):
            dy[w, c] = dy[w, c] * slope if y[w, c] <= 0 else dy[w, c]
            total[c] += dy[w, c]
    if window == (1, 1):
        for m in range(M):
            for c in range(C):
                product[c] += dy[m, c] * xh[m, c]
    else:
        for m in range(M):
            w, here = window_of(m, extents, window)
            if w != LEFT_OUT:
                for c in range(C):
                    product[c] += dy[w, c] * xh[m, c] if place[w, c] == here else 0
    mean, incline, scale = np.empty_like(s), np.empty_like(s), np.empty_like(s)
    for c in range(C):
        dbeta[c], dgamma[c] = total[c], product[c]
        mean[c], incline[c], scale[c] = total[c] / M, product[c] / M, s[c] * gamma[c]
    for m in range(M):
        w, here = m, 0
        if window != (1, 1):
            w, here = window_of(m, extents, window)
        if w == LEFT_OUT:
            for c in range(C):
                dx[m, c] = scale[c] * (-mean[c] - xh[m, c] * incline[c])
        elif window == (1, 1):
            for c in range(C):
                dx[m, c] = scale[c] * (dy[w, c] - mean[c] - xh[m, c] * incline[c])
        else:
            for c in range(C):
                du = dy[w, c] if place[w, c] == here else 0
                dx[m, c] = scale[c] * (du - mean[c] - xh[m, c] * incline[c])


@njit(error_model="numpy")
def r_forward(ry, rs, rx, y, place, xh, s, gamma, rgamma, rbeta, slope, extents, window):
    """Fills ry and rs along (rx, rgamma, rbeta), and makes rx to rxh."""
    M, C = xh.shape
    total, product = np.zeros(C), np.zeros(C)
    for m in range(M):
        for c in range(C):
            total[c] += rx[m, c]
            product[c] += rx[m, c] * xh[m, c]
    mean, incline = np.empty_like(s), np.empty_like(s)
    for c in range(C):
        mean[c], incline[c] = total[c] / M, product[c] / M
        rs[c] = -s[c] * s[c] * incline[c]
    for m in range(M):
        w, here = m, 0
        if window != (1, 1):
            w, here = window_of(m, extents, window)
        if w == LEFT_OUT:
            for c in range(C):
                rx[m, c] = s[c] * (rx[m, c] - mean[c] - xh[m, c] * incline[c])
        elif window == (1, 1):
            for c in range(C):
                rhat = s[c] * (rx[m, c] - mean[c] - xh[m, c] * incline[c])
                rx[m, c] = rhat
                ru = rgamma[c] * xh[m, c] + gamma[c] * rhat + rbeta[c]
                ry[w, c] = ru * slope if y[w, c] <= 0 else ru
        else:
            for c in range(C):
                rhat = s[c] * (rx[m, c] - mean[c] - xh[m, c] * incline[c])
                rx[m, c] = rhat
                ru = rgamma[c] * xh[m, c] + gamma[c] * rhat + rbeta[c]
                ra = ru * slope if y[w, c] <= 0 else ru
                ry[w, c] = ra if place[w, c] == here else ry[w, c]


@njit(error_model="numpy")
def r_backward(rxh, rdgamma, rdbeta, du, rdy, y, place, xh, s, rs, gamma, rgamma, slope, extents, window):
    """The product rule on `backward`: makes rxh to rdx and rdy to rdu, and fills rdgamma and rdbeta; du is what `backward` left in dy."""
    M, C = xh.shape
    total, rtotal, product, rproduct = np.zeros(C), np.zeros(C), np.zeros(C), np.zeros(C)
    for w in range(len(y)):
        for c in range(C):
            rdy[w, c] = rdy[w, c] * slope if y[w, c] <= 0 else rdy[w, c]
            total[c] += du[w, c]
            rtotal[c] += rdy[w, c]
    for m in range(M):
        w, here = m, 0
        if window != (1, 1):
            w, here = window_of(m, extents, window)
        if window == (1, 1):
            for c in range(C):
                product[c] += du[w, c] * xh[m, c]
                rproduct[c] += rdy[w, c] * xh[m, c] + du[w, c] * rxh[m, c]
        elif w != LEFT_OUT:
            for c in range(C):
                won = place[w, c] == here
                product[c] += du[w, c] * xh[m, c] if won else 0
                rproduct[c] += rdy[w, c] * xh[m, c] + du[w, c] * rxh[m, c] if won else 0
    mean, rmean, incline, rincline = np.empty_like(s), np.empty_like(s), np.empty_like(s), np.empty_like(s)
    for c in range(C):                                               # sums over du; then means over dxh = gamma du
        rdbeta[c], rdgamma[c] = rtotal[c], rproduct[c]
        mean[c], incline[c] = gamma[c] * total[c] / M, gamma[c] * product[c] / M
        rmean[c] = (rgamma[c] * total[c] + gamma[c] * rtotal[c]) / M
        rincline[c] = (rgamma[c] * product[c] + gamma[c] * rproduct[c]) / M
    for m in range(M):
        w, here = m, 0
        if window != (1, 1):
            w, here = window_of(m, extents, window)
        if window == (1, 1):
            for c in range(C):
                inner = gamma[c] * du[w, c] - mean[c] - xh[m, c] * incline[c]
                rinner = rgamma[c] * du[w, c] + gamma[c] * rdy[w, c] - rmean[c] - rxh[m, c] * incline[c] - xh[m, c] * rincline[c]
                rxh[m, c] = rs[c] * inner + s[c] * rinner
        else:
            for c in range(C):
                won = w != LEFT_OUT and place[w, c] == here
                dhat = gamma[c] * du[w, c] if won else 0
                rdhat = rgamma[c] * du[w, c] + gamma[c] * rdy[w, c] if won else 0
                inner = dhat - mean[c] - xh[m, c] * incline[c]
                rinner = rdhat - rmean[c] - rxh[m, c] * incline[c] - xh[m, c] * rincline[c]
                rxh[m, c] = rs[c] * inner + s[c] * rinner
