"""The derivatives of the fused forward and backward pass along a direction (cpu.py)."""

import numpy as np

from refmaml.kernels.norm_act_pool import formulas as f
from refmaml.kernels.norm_act_pool.windows import image_groups, lists_of
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import row, tail


# fmt: off
@external("F[::1], F[::1], F[::1], F[::1], int16[::1], F[::1], F[::1], F[::1], F[::1], F[::1], "
          "F, int64[::1], int64", on_demand=True)
def r_forward(ry, rs, rx, y, winner, xh, s, gamma, rgamma, rbeta, slope, block, N):
    """Fills ry and rs along (rx, rgamma, rbeta), and turns rx into rxh."""
    C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
    every, of_windows, of_taps, of_outside = lists_of(block)
    M, total, product = N * pixels, np.zeros(C), np.zeros(C)
    origin = rx[:C].copy()  # the first pixel; see batch_norm/cpu.py
    for m, px, _ in image_groups(block, N):
        f.add_tangents((tail(rx, px), tail(xh, px), origin, total, product), every, every, m * pixels, C)
    mean, projection = np.empty_like(s), np.empty_like(s)
    for c in range(C):
        mean[c], projection[c] = total[c] / M, product[c] / M
        rs[c] = -s[c] * s[c] * projection[c]
    for m, px, wi in image_groups(block, N):
        for tap in range(taps):
            if taps == 1:
                f.r_forward_unpooled((tail(rx, px), tail(xh, px), tail(ry, wi), tail(y, wi), origin, mean, projection,
                                      s, gamma, rgamma, rbeta, slope),
                                     row(of_taps, 0), of_windows, m * windows, C)
            else:
                f.r_forward_pooled((tail(rx, px), tail(xh, px), tail(ry, wi), tail(y, wi), tail(winner, wi), origin, mean,
                                    projection, s, gamma, rgamma, rbeta, slope, np.int16(tap)),
                                   row(of_taps, tap), of_windows, m * windows, C)
        f.r_forward_outside((tail(rx, px), tail(xh, px), origin, mean, projection, s),
                            of_outside, of_outside, m * outside, C)


@inlined()
def r_backward_sums(total, rtotal, product, rproduct, rxh, du, rdy, y, winner, xh, slope, block,
                    N):
    """Adds to the sums of du, rdu, du xh and rdu xh + du rxh; turns rdy into rdu."""
    C, windows, taps = block[1], block[3], block[4]
    _, of_windows, of_taps, _ = lists_of(block)
    for m, px, wi in image_groups(block, N):
        f.r_adjoint_of_u((tail(rdy, wi), tail(du, wi), tail(y, wi), slope, total, rtotal),
                         of_windows, of_windows, m * windows, C)
        for tap in range(taps):
            if taps == 1:
                f.r_add_products_unpooled((tail(xh, px), tail(rxh, px), tail(du, wi), tail(rdy, wi), product,
                                           rproduct),
                                          row(of_taps, 0), of_windows, m * windows, C)
            else:
                f.r_add_products_pooled((tail(xh, px), tail(rxh, px), tail(du, wi), tail(rdy, wi), tail(winner, wi),
                                         np.int16(tap), product, rproduct),
                                        row(of_taps, tap), of_windows, m * windows, C)


@external("F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], int16[::1], F[::1], F[::1], F[::1], "
          "F[::1], F[::1], F, int64[::1], int64", on_demand=True)
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
                f.r_backward_unpooled((tail(xh, px), tail(rxh, px), tail(du, wi), tail(rdy, wi), s, rs, gamma, rgamma,
                                       mean, projection, rmean, rprojection),
                                      row(of_taps, 0), of_windows, m * windows, C)
            else:
                f.r_backward_pooled((tail(xh, px), tail(rxh, px), tail(du, wi), tail(rdy, wi), tail(winner, wi), s, rs,
                                     gamma, rgamma, mean, projection, rmean, rprojection,
                                     np.int16(tap)),
                                    row(of_taps, tap), of_windows, m * windows, C)
        f.r_backward_outside((tail(xh, px), tail(rxh, px), s, rs, mean, projection, rmean, rprojection),
                             of_outside, of_outside, m * outside, C)
# fmt: on
