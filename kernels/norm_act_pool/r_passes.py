"""The derivatives of the fused forward and backward pass along a direction (cpu.py)."""

import numpy as np

from refmaml.kernels.norm_act_pool import formulas as f
from refmaml.kernels.norm_act_pool.windows import image_groups, lists_of
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner


# fmt: off
@inner()
def r_forward(ry, rs, rx, y, winner, xh, s, gamma, rgamma, rbeta, slope, block, N):
    """Fills ry and rs along (rx, rgamma, rbeta), and turns rx into rxh."""
    C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
    every, of_windows, of_taps, of_outside = lists_of(block)
    M, total, product = N * pixels, np.zeros(C), np.zeros(C)
    origin = rx[:C].copy()  # the first pixel; see batch_norm/cpu.py
    for m, px, _ in image_groups(block, N):
        f.add_tangents((rx[px:], xh[px:], origin, total, product), every, every, m * pixels, C)
    mean, projection = np.empty_like(s), np.empty_like(s)
    for c in range(C):
        mean[c], projection[c] = total[c] / M, product[c] / M
        rs[c] = -s[c] * s[c] * projection[c]
    for m, px, wi in image_groups(block, N):
        for tap in range(taps):
            if taps == 1:
                f.r_forward_unpooled((rx[px:], xh[px:], ry[wi:], y[wi:], origin, mean, projection,
                                      s, gamma, rgamma, rbeta, slope),
                                     of_taps[0], of_windows, m * windows, C)
            else:
                f.r_forward_pooled((rx[px:], xh[px:], ry[wi:], y[wi:], winner[wi:], origin, mean,
                                    projection, s, gamma, rgamma, rbeta, slope, np.int16(tap)),
                                   of_taps[tap], of_windows, m * windows, C)
        f.r_forward_outside((rx[px:], xh[px:], origin, mean, projection, s),
                            of_outside, of_outside, m * outside, C)


@inlined()
def r_backward_sums(total, rtotal, product, rproduct, rxh, du, rdy, y, winner, xh, slope, block,
                    N):
    """Adds to the sums of du, rdu, du xh and rdu xh + du rxh; turns rdy into rdu."""
    C, windows, taps = block[1], block[3], block[4]
    _, of_windows, of_taps, _ = lists_of(block)
    for m, px, wi in image_groups(block, N):
        f.r_adjoint_of_u((rdy[wi:], du[wi:], y[wi:], slope, total, rtotal),
                         of_windows, of_windows, m * windows, C)
        for tap in range(taps):
            if taps == 1:
                f.r_add_products_unpooled((xh[px:], rxh[px:], du[wi:], rdy[wi:], product,
                                           rproduct),
                                          of_taps[0], of_windows, m * windows, C)
            else:
                f.r_add_products_pooled((xh[px:], rxh[px:], du[wi:], rdy[wi:], winner[wi:],
                                         np.int16(tap), product, rproduct),
                                        of_taps[tap], of_windows, m * windows, C)


@inner()
def r_backward(rxh, rdgamma, rdbeta, du, rdy, y, winner, xh, s, rs, gamma, rgamma, slope, block,
               N):
    """The product rule on `backward`. Fills rdgamma and rdbeta; rxh becomes rdx, rdy
    rdu.

    du is what `backward` left in dy.
    """
    C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
    _, of_windows, of_taps, of_outside = lists_of(block)
    M = N * pixels
    total, rtotal, product, rproduct = np.zeros(C), np.zeros(C), np.zeros(C), np.zeros(C)
    r_backward_sums(total, rtotal, product, rproduct, rxh, du, rdy, y, winner, xh, slope, block, N)
    mean, rmean = np.empty_like(s), np.empty_like(s)
    projection, rprojection = np.empty_like(s), np.empty_like(s)
    for c in range(C):  # sums over du; then means over dxh = gamma du
        rdbeta[c], rdgamma[c] = rtotal[c], rproduct[c]
        mean[c], projection[c] = gamma[c] * total[c] / M, gamma[c] * product[c] / M
        rmean[c] = (rgamma[c] * total[c] + gamma[c] * rtotal[c]) / M
        rprojection[c] = (rgamma[c] * product[c] + gamma[c] * rproduct[c]) / M
    for m, px, wi in image_groups(block, N):
        for tap in range(taps):
            if taps == 1:
                f.r_backward_unpooled((xh[px:], rxh[px:], du[wi:], rdy[wi:], s, rs, gamma, rgamma,
                                       mean, projection, rmean, rprojection),
                                      of_taps[0], of_windows, m * windows, C)
            else:
                f.r_backward_pooled((xh[px:], rxh[px:], du[wi:], rdy[wi:], winner[wi:], s, rs,
                                     gamma, rgamma, mean, projection, rmean, rprojection,
                                     np.int16(tap)),
                                    of_taps[tap], of_windows, m * windows, C)
        f.r_backward_outside((xh[px:], rxh[px:], s, rs, mean, projection, rmean, rprojection),
                             of_outside, of_outside, m * outside, C)
# fmt: on
