"""Batch-norm, a piecewise linear activation and max-pooling in one go on a CPU, for one task: the four passes.

    xh = (x - <x>) s      u = gamma xh + beta      a = u where u > 0, slope u elsewhere      y = max of a over a window

and the passes of the three layers on after each other (batch_norm/reference.py, activation/reference.py, pooling/reference.py), which
remain the reference. What is gained is traffic: between the passes of three layers arrays go to memory and come back; here x
becomes xh where it stands, u and a are never written, and the choice of the activation is read off y: y > 0 where u > 0 won.

Images are rows of channels: x and its kin N H W of them, y and its kin N Ho Wo; all arrays are flat. Windows lie side by side and do not
overlap. slope is 0 for ReLU, 1 for no activation. `block` are the lists of windows.py. Sums over pixels are in float64, as a thousand
float32 additions in a row would lose a digit.

Versions, nanoseconds for 16 numbers, forward / backward / r_forward / r_backward, 5 images of 14x14x64, float32, one thread:
  v1  loops over pixels and channels in Numba      14 / 16 / 17 / 56     (a row is 4 vectors; each row asks anew whether arrays overlap)
  v2  row formulas, four vectors of channels at a time                          10 / 11 / 12 / 21
  v3  two vectors at a time, always masked: half the code to compile            12 / 14 / 17 / 25
"""

import numpy as np

from refmaml.kernels.norm_act_pool import formulas as f
from refmaml.kernels.norm_act_pool.windows import lists_of
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner


@inner()
def images(block, N):
    """(first image, how many, where its pixels begin, where its windows begin) for the images of a task, n at a time."""
    n, C, pixels, windows = block[0], block[1], block[2], block[3]
    for image in range(0, N, n):
        yield min(n, N - image), image * pixels * C, image * windows * C


@inlined()
def statistics(mean, s, x, eps, block, N):
    """Fills mean and s = 1 / sqrt(var + eps) of each channel; the variance is of centred values."""
    C, pixels, every = block[1], block[2], lists_of(block)[0]
    M, total, square = N * pixels, np.zeros(C), np.zeros(C)
    for m, px, _ in images(block, N):
        f.add_up((x[px:], total), every, every, m * pixels, C)
    for c in range(C):
        mean[c] = total[c] / M
    for m, px, _ in images(block, N):
        f.add_squares((x[px:], mean, square), every, every, m * pixels, C)
    for c in range(C):
        s[c] = 1 / np.sqrt(square[c] / M + eps)


@inner()
def forward(y, place, x, s, gamma, beta, eps, slope, block, N):
    """Fills y, s, place (who won each window: the first of equals; NaN wins over everything), and makes x to xh."""
    C, windows, taps, left = block[1], block[3], block[4], block[5]
    _, of_windows, of_taps, of_left = lists_of(block)
    mean = np.empty(C, x.dtype)
    statistics(mean, s, x, eps, block, N)
    for m, px, wi in images(block, N):
        if taps == 1:
            f.forward_alone(
                (x[px:], y[wi:], mean, s, gamma, beta, slope),
                of_taps[0],
                of_windows,
                m * windows,
                C,
            )
        else:
            for here in range(taps):
                f.forward_pooled(
                    (
                        x[px:],
                        y[wi:],
                        place[wi:],
                        mean,
                        s,
                        gamma,
                        beta,
                        slope,
                        np.int16(here),
                        np.int16(0),
                    ),
                    of_taps[here],
                    of_windows,
                    m * windows,
                    C,
                )
        f.forward_left((x[px:], mean, s), of_left, of_left, m * left, C)


@inner()
def backward(dx, dgamma, dbeta, dy, y, place, xh, s, gamma, slope, block, N):
    """Fills dx (which may be xh itself), dgamma = sum du xh, dbeta = sum du, and makes dy to the adjoint du of the u that won."""
    C, pixels, windows, taps, left = block[1], block[2], block[3], block[4], block[5]
    _, of_windows, of_taps, of_left = lists_of(block)
    M, total, product = N * pixels, np.zeros(C), np.zeros(C)
    for m, px, wi in images(block, N):
        f.adjoint_of_u((dy[wi:], y[wi:], slope, total), of_windows, of_windows, m * windows, C)
        for here in range(taps):
            if taps == 1:
                f.add_products_alone(
                    (xh[px:], dy[wi:], product), of_taps[0], of_windows, m * windows, C
                )
            else:
                f.add_products_pooled(
                    (xh[px:], dy[wi:], place[wi:], np.int16(here), product),
                    of_taps[here],
                    of_windows,
                    m * windows,
                    C,
                )
    mean, incline, scale = np.empty_like(s), np.empty_like(s), np.empty_like(s)
    for c in range(C):
        dbeta[c], dgamma[c] = total[c], product[c]
        mean[c], incline[c], scale[c] = total[c] / M, product[c] / M, s[c] * gamma[c]
    for m, px, wi in images(block, N):
        for here in range(taps):
            if taps == 1:
                f.backward_alone(
                    (dx[px:], xh[px:], dy[wi:], scale, mean, incline),
                    of_taps[0],
                    of_windows,
                    m * windows,
                    C,
                )
            else:
                f.backward_pooled(
                    (dx[px:], xh[px:], dy[wi:], place[wi:], scale, mean, incline, np.int16(here)),
                    of_taps[here],
                    of_windows,
                    m * windows,
                    C,
                )
        f.backward_left((dx[px:], xh[px:], scale, mean, incline), of_left, of_left, m * left, C)


@inner()
def r_forward(ry, rs, rx, y, place, xh, s, gamma, rgamma, rbeta, slope, block, N):
    """Fills ry and rs along (rx, rgamma, rbeta), and makes rx to rxh."""
    C, pixels, windows, taps, left = block[1], block[2], block[3], block[4], block[5]
    every, of_windows, of_taps, of_left = lists_of(block)
    M, total, product = N * pixels, np.zeros(C), np.zeros(C)
    for m, px, _ in images(block, N):
        f.add_tangents((rx[px:], xh[px:], total, product), every, every, m * pixels, C)
    mean, incline = np.empty_like(s), np.empty_like(s)
    for c in range(C):
        mean[c], incline[c] = total[c] / M, product[c] / M
        rs[c] = -s[c] * s[c] * incline[c]
    for m, px, wi in images(block, N):
        for here in range(taps):
            if taps == 1:
                f.r_forward_alone(
                    (
                        rx[px:],
                        xh[px:],
                        ry[wi:],
                        y[wi:],
                        mean,
                        incline,
                        s,
                        gamma,
                        rgamma,
                        rbeta,
                        slope,
                    ),
                    of_taps[0],
                    of_windows,
                    m * windows,
                    C,
                )
            else:
                f.r_forward_pooled(
                    (
                        rx[px:],
                        xh[px:],
                        ry[wi:],
                        y[wi:],
                        place[wi:],
                        mean,
                        incline,
                        s,
                        gamma,
                        rgamma,
                        rbeta,
                        slope,
                        np.int16(here),
                    ),
                    of_taps[here],
                    of_windows,
                    m * windows,
                    C,
                )
        f.r_forward_left((rx[px:], xh[px:], mean, incline, s), of_left, of_left, m * left, C)


@inlined()
def r_backward_sums(total, rtotal, product, rproduct, rxh, du, rdy, y, place, xh, slope, block, N):
    """Sums over du and rdu, of themselves and with xh and rxh; makes rdy to rdu."""
    C, windows, taps = block[1], block[3], block[4]
    _, of_windows, of_taps, _ = lists_of(block)
    for m, px, wi in images(block, N):
        f.r_adjoint_of_u(
            (rdy[wi:], du[wi:], y[wi:], slope, total, rtotal),
            of_windows,
            of_windows,
            m * windows,
            C,
        )
        for here in range(taps):
            if taps == 1:
                f.r_add_products_alone(
                    (xh[px:], rxh[px:], du[wi:], rdy[wi:], product, rproduct),
                    of_taps[0],
                    of_windows,
                    m * windows,
                    C,
                )
            else:
                f.r_add_products_pooled(
                    (
                        xh[px:],
                        rxh[px:],
                        du[wi:],
                        rdy[wi:],
                        place[wi:],
                        np.int16(here),
                        product,
                        rproduct,
                    ),
                    of_taps[here],
                    of_windows,
                    m * windows,
                    C,
                )


@inner()
def r_backward(rxh, rdgamma, rdbeta, du, rdy, y, place, xh, s, rs, gamma, rgamma, slope, block, N):
    """The product rule on `backward`: makes rxh to rdx and rdy to rdu, and fills rdgamma and rdbeta; du is what `backward` left in dy."""
    C, pixels, windows, taps, left = block[1], block[2], block[3], block[4], block[5]
    _, of_windows, of_taps, of_left = lists_of(block)
    M, total, rtotal, product, rproduct = (
        N * pixels,
        np.zeros(C),
        np.zeros(C),
        np.zeros(C),
        np.zeros(C),
    )
    r_backward_sums(total, rtotal, product, rproduct, rxh, du, rdy, y, place, xh, slope, block, N)
    mean, rmean, incline, rincline = (
        np.empty_like(s),
        np.empty_like(s),
        np.empty_like(s),
        np.empty_like(s),
    )
    for c in range(C):  # sums over du; then means over dxh = gamma du
        rdbeta[c], rdgamma[c] = rtotal[c], rproduct[c]
        mean[c], incline[c] = gamma[c] * total[c] / M, gamma[c] * product[c] / M
        rmean[c] = (rgamma[c] * total[c] + gamma[c] * rtotal[c]) / M
        rincline[c] = (rgamma[c] * product[c] + gamma[c] * rproduct[c]) / M
    for m, px, wi in images(block, N):
        for here in range(taps):
            if taps == 1:
                f.r_backward_alone(
                    (
                        xh[px:],
                        rxh[px:],
                        du[wi:],
                        rdy[wi:],
                        s,
                        rs,
                        gamma,
                        rgamma,
                        mean,
                        incline,
                        rmean,
                        rincline,
                    ),
                    of_taps[0],
                    of_windows,
                    m * windows,
                    C,
                )
            else:
                f.r_backward_pooled(
                    (
                        xh[px:],
                        rxh[px:],
                        du[wi:],
                        rdy[wi:],
                        place[wi:],
                        s,
                        rs,
                        gamma,
                        rgamma,
                        mean,
                        incline,
                        rmean,
                        rincline,
                        np.int16(here),
                    ),
                    of_taps[here],
                    of_windows,
                    m * windows,
                    C,
                )
        f.r_backward_left(
            (xh[px:], rxh[px:], s, rs, mean, incline, rmean, rincline),
            of_left,
            of_left,
            m * left,
            C,
        )
