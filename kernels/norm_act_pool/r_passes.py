"""The derivatives of the fused forward and backward pass along a direction (cpu.py)."""

import numpy as np

from refmaml.kernels.norm_act_pool import formulas as f
from refmaml.kernels.norm_act_pool.windows import image_groups, lists_of
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import part, row


# fmt: off
def r_forward_with(pooled):
    @external("F[::1], F[::1], F[::1], F[::1], int16[::1], F[::1], F[::1], F[::1], F[::1], "
              "F[::1], F, int64[::1], int64",
              name="r_forward_pooled" if pooled else "r_forward_unpooled", on_demand=True)
    def run(ry, rs, rx, y, winner, xh, s, gamma, rgamma, rbeta, slope, block, N):
        C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
        every, of_windows, of_taps, of_outside = lists_of(block)
        M, total, product = N * pixels, np.zeros(C), np.zeros(C)
        origin = part(rx, 0, C).copy()  # the first pixel; see batch_norm/cpu.py
        for m, px, wi in image_groups(block, N):
            f.add_tangents((rx, xh, origin, total, product), px, wi, every, every, m * pixels, C)
        mean, projection = np.empty_like(s), np.empty_like(s)
        for c in range(C):
            mean[c], projection[c] = total[c] / M, product[c] / M
            rs[c] = -s[c] * s[c] * projection[c]
        for m, px, wi in image_groups(block, N):
            if pooled:
                for tap in range(taps):
                    f.r_forward_pooled((rx, xh, ry, y, winner, origin, mean, projection, s, gamma,
                                        rgamma, rbeta, slope, np.int16(tap)),
                                       px, wi, row(of_taps, tap), of_windows, m * windows, C)
                f.r_forward_outside((rx, xh, origin, mean, projection, s),
                                    px, wi, of_outside, of_outside, m * outside, C)
            else:
                f.r_forward_unpooled((rx, xh, ry, y, origin, mean, projection, s, gamma, rgamma,
                                      rbeta, slope),
                                     px, wi, row(of_taps, 0), of_windows, m * windows, C)

    return run


def r_backward_sums_with(pooled):
    @inlined()
    def run(total, rtotal, product, rproduct, rxh, du, rdy, y, winner, xh, slope, block, N):
        """Adds du, rdu, du xh and rdu xh + du rxh to the sums; turns rdy into rdu."""
        C, windows, taps = block[1], block[3], block[4]
        _, of_windows, of_taps, _ = lists_of(block)
        for m, px, wi in image_groups(block, N):
            f.r_adjoint_of_u((rdy, du, y, slope, total, rtotal),
                             px, wi, of_windows, of_windows, m * windows, C)
            if pooled:
                for tap in range(taps):
                    f.r_add_products_pooled((xh, rxh, du, rdy, winner, np.int16(tap), product,
                                             rproduct),
                                            px, wi, row(of_taps, tap), of_windows, m * windows, C)
            else:
                f.r_add_products_unpooled((xh, rxh, du, rdy, product, rproduct),
                                          px, wi, row(of_taps, 0), of_windows, m * windows, C)

    return run


r_sums_unpooled, r_sums_pooled = r_backward_sums_with(False), r_backward_sums_with(True)


def r_backward_with(pooled):
    @external("F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], int16[::1], F[::1], F[::1], "
              "F[::1], F[::1], F[::1], F, int64[::1], int64",
              name="r_backward_pooled" if pooled else "r_backward_unpooled", on_demand=True)
    def run(rxh, rdgamma, rdbeta, du, rdy, y, winner, xh, s, rs, gamma, rgamma, slope, block, N):
        C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
        _, of_windows, of_taps, of_outside = lists_of(block)
        M = N * pixels
        total, rtotal, product, rproduct = np.zeros(C), np.zeros(C), np.zeros(C), np.zeros(C)
        if pooled:
            r_sums_pooled(total, rtotal, product, rproduct, rxh, du, rdy, y, winner, xh, slope,
                          block, N)
        else:
            r_sums_unpooled(total, rtotal, product, rproduct, rxh, du, rdy, y, winner, xh, slope,
                            block, N)
        mean, rmean = np.empty_like(s), np.empty_like(s)
        projection, rprojection = np.empty_like(s), np.empty_like(s)
        for c in range(C):  # sums over du; then means over dxh = gamma du
            rdbeta[c], rdgamma[c] = rtotal[c], rproduct[c]
            mean[c], projection[c] = gamma[c] * total[c] / M, gamma[c] * product[c] / M
            rmean[c] = (rgamma[c] * total[c] + gamma[c] * rtotal[c]) / M
            rprojection[c] = (rgamma[c] * product[c] + gamma[c] * rproduct[c]) / M
        for m, px, wi in image_groups(block, N):
            if pooled:
                for tap in range(taps):
                    f.r_backward_pooled((xh, rxh, du, rdy, winner, s, rs, gamma, rgamma, mean,
                                         projection, rmean, rprojection, np.int16(tap)),
                                        px, wi, row(of_taps, tap), of_windows, m * windows, C)
                f.r_backward_outside((xh, rxh, s, rs, mean, projection, rmean, rprojection),
                                     px, wi, of_outside, of_outside, m * outside, C)
            else:
                f.r_backward_unpooled((xh, rxh, du, rdy, s, rs, gamma, rgamma, mean, projection,
                                       rmean, rprojection),
                                      px, wi, row(of_taps, 0), of_windows, m * windows, C)

    return run


r_forward_unpooled, r_forward_pooled = r_forward_with(False), r_forward_with(True)
r_backward_unpooled, r_backward_pooled = r_backward_with(False), r_backward_with(True)


@inlined()
def r_forward(ry, rs, rx, y, winner, xh, s, gamma, rgamma, rbeta, slope, block, N):
    """Fills ry and rs along (rx, rgamma, rbeta), and turns rx into rxh."""
    if block[4] == 1:
        r_forward_unpooled(ry, rs, rx, y, winner, xh, s, gamma, rgamma, rbeta, slope, block, N)
    else:
        r_forward_pooled(ry, rs, rx, y, winner, xh, s, gamma, rgamma, rbeta, slope, block, N)


@inlined()
def r_backward(rxh, rdgamma, rdbeta, du, rdy, y, winner, xh, s, rs, gamma, rgamma, slope, block,
               N):
    """The product rule on `backward`. Fills rdgamma and rdbeta; rxh becomes rdx, rdy
    rdu.

    du is what `backward` left in dy.
    """
    if block[4] == 1:
        r_backward_unpooled(rxh, rdgamma, rdbeta, du, rdy, y, winner, xh, s, rs, gamma, rgamma,
                            slope, block, N)
    else:
        r_backward_pooled(rxh, rdgamma, rdbeta, du, rdy, y, winner, xh, s, rs, gamma, rgamma,
                          slope, block, N)
# fmt: on
