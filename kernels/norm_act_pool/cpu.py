"""Batch-norm, a piecewise linear activation and max-pooling in one pass on a CPU.

    xh = (x - <x>) s     u = gamma xh + beta     a = u where u > 0, slope u elsewhere
    y  = the maximum of a over a window

for one task; r_passes.py has the derivatives of both passes along a direction. The
three layers one after another (batch_norm/reference.py, activation/reference.py,
pooling/reference.py) are the reference. Fusing them saves memory traffic: x becomes xh
in place, u and a are never written, and the branch of the activation is read off y,
which is positive where the winning u was. x and rx are centred as in batch_norm/cpu.py,
so that a mean of many standard deviations costs no digits.

Images are rows of channels: x and its derivatives N H W of them, y and its derivatives
N Ho Wo. All arrays are flat. Windows do not overlap. slope is 0 for ReLU, 1 for no
activation. `block` has the lists of windows.py. Sums over pixels are in float64,
because a thousand float32 additions in a row lose a digit.

Versions, in nanoseconds for 16 numbers, forward / backward / r_forward / r_backward,
for 5 images of 14x14x64, float32, one thread:
  v1  loops over pixels and channels in Numba (a row is 4 vectors, and
      before each row the code tests whether arrays overlap)             14 / 16 / 17 /
                                                                         56
  v2  row formulas, four vectors of channels at a time                   10 / 11 / 12 /
      21
  v3  two vectors at a time, always masked: half the compilation         12 / 14 / 17 /
      25
  v4  whole vectors are stored without a mask. On a processor of AMD
      with AVX2, where v3 takes 26 / 29 / 30 / 47                        15 / 16 / 18 /
      33
"""

import numpy as np

from refmaml.kernels.batch_norm.cpu import inverse_deviation
from refmaml.kernels.norm_act_pool import formulas as f
from refmaml.kernels.norm_act_pool.r_passes import r_backward, r_forward
from refmaml.kernels.norm_act_pool.windows import image_groups, lists_of
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.unowned_views import row

__all__ = ["forward", "backward", "r_forward", "r_backward"]


@inlined()
def statistics(mean, offset, s, x, eps, block, N):
    """Fills s = 1 / sqrt(var + eps), and mean and offset, whose sum is <x>.

    All sums are taken of x - K, K being the mean of the first images. It differs from
    <x> by at most sqrt(N / n) standard deviations of x, as n of N images have that
    mean; so x - K has few digits less than x - <x>, and one pass over x is enough.
    """
    C, pixels, every = block[1], block[2], lists_of(block)[0]
    M, total, rest, square = N * pixels, np.zeros(C), np.zeros(C), np.zeros(C)
    first = min(block[0], N)
    f.add_values((x, total), 0, 0, every, every, first * pixels, C)
    for c in range(C):
        mean[c] = total[c] / (first * pixels)
    for m, px, wi in image_groups(block, N):
        f.add_centred((x, mean, rest, square), px, wi, every, every, m * pixels, C)
    for c in range(C):
        near, excess = mean[c], rest[c] / M
        mean[c] = near + excess
        offset[c] = near - mean[c] + excess
        s[c] = inverse_deviation(excess, square[c] / M, eps)


# The passes exist twice, compiled on demand: with pooling, and without. `pooled` is a
# constant of each, so that neither has the code of the other.


# fmt: off
def forward_with(pooled):
    @external("F[::1], int16[::1], F[::1], F[::1], F[::1], F[::1], F, F, int64[::1], int64",
              name="forward_pooled" if pooled else "forward_unpooled", on_demand=True)
    def run(y, winner, x, s, gamma, beta, eps, slope, block, N):
        C, windows, taps, outside = block[1], block[3], block[4], block[5]
        _, of_windows, of_taps, of_outside = lists_of(block)
        mean, offset = np.empty(C, x.dtype), np.empty(C, x.dtype)
        statistics(mean, offset, s, x, eps, block, N)
        for m, px, wi in image_groups(block, N):
            if pooled:
                for tap in range(taps):
                    f.forward_pooled((x, y, winner, mean, offset, s, gamma, beta, slope,
                                      np.int16(tap), np.int16(0)),
                                     px, wi, row(of_taps, tap), of_windows, m * windows, C)
                f.forward_outside((x, mean, offset, s),
                                  px, wi, of_outside, of_outside, m * outside, C)
            else:
                f.forward_unpooled((x, y, mean, offset, s, gamma, beta, slope),
                                   px, wi, row(of_taps, 0), of_windows, m * windows, C)

    return run


def backward_with(pooled):
    @external("F[::1], F[::1], F[::1], F[::1], F[::1], int16[::1], F[::1], F[::1], F[::1], F, "
              "int64[::1], int64",
              name="backward_pooled" if pooled else "backward_unpooled", on_demand=True)
    def run(dx, dgamma, dbeta, dy, y, winner, xh, s, gamma, slope, block, N):
        C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
        _, of_windows, of_taps, of_outside = lists_of(block)
        M, total, product = N * pixels, np.zeros(C), np.zeros(C)
        for m, px, wi in image_groups(block, N):
            f.adjoint_of_u((dy, y, slope, total), px, wi, of_windows, of_windows, m * windows, C)
            if pooled:
                for tap in range(taps):
                    f.add_products_pooled((xh, dy, winner, np.int16(tap), product),
                                          px, wi, row(of_taps, tap), of_windows, m * windows, C)
            else:
                f.add_products_unpooled((xh, dy, product),
                                        px, wi, row(of_taps, 0), of_windows, m * windows, C)
        mean, projection, scale = np.empty_like(s), np.empty_like(s), np.empty_like(s)
        for c in range(C):
            dbeta[c], dgamma[c] = total[c], product[c]
            mean[c], projection[c], scale[c] = total[c] / M, product[c] / M, s[c] * gamma[c]
        for m, px, wi in image_groups(block, N):
            if pooled:
                for tap in range(taps):
                    f.backward_pooled((dx, xh, dy, winner, scale, mean, projection,
                                       np.int16(tap)),
                                      px, wi, row(of_taps, tap), of_windows, m * windows, C)
                f.backward_outside((dx, xh, scale, mean, projection),
                                   px, wi, of_outside, of_outside, m * outside, C)
            else:
                f.backward_unpooled((dx, xh, dy, scale, mean, projection),
                                    px, wi, row(of_taps, 0), of_windows, m * windows, C)

    return run


forward_unpooled, forward_pooled = forward_with(False), forward_with(True)
backward_unpooled, backward_pooled = backward_with(False), backward_with(True)


@inlined()
def forward(y, winner, x, s, gamma, beta, eps, slope, block, N):
    """Fills y, s and winner, and turns x into xh.

    winner: the tap that won each window; the first of equals; NaN wins over every
    number.
    """
    if block[4] == 1:
        forward_unpooled(y, winner, x, s, gamma, beta, eps, slope, block, N)
    else:
        forward_pooled(y, winner, x, s, gamma, beta, eps, slope, block, N)


@inlined()
def backward(dx, dgamma, dbeta, dy, y, winner, xh, s, gamma, slope, block, N):
    """Fills dx, dgamma = sum du xh, dbeta = sum du; dx may be xh.

    Turns dy into du, the adjoint of the winning u.
    """
    if block[4] == 1:
        backward_unpooled(dx, dgamma, dbeta, dy, y, winner, xh, s, gamma, slope, block, N)
    else:
        backward_pooled(dx, dgamma, dbeta, dy, y, winner, xh, s, gamma, slope, block, N)
# fmt: on
