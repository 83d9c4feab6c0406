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
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner

__all__ = ["forward", "backward", "r_forward", "r_backward"]


@inlined()
def statistics(mean, offset, s, x, eps, block, N):
    """Fills s = 1 / sqrt(var + eps), and mean and offset, whose sum is <x>."""
    C, pixels, every = block[1], block[2], lists_of(block)[0]
    M, total, rest, square = N * pixels, np.zeros(C), np.zeros(C), np.zeros(C)
    for m, px, _ in image_groups(block, N):
        f.add_values((x[px:], total), every, every, m * pixels, C)
    for c in range(C):
        mean[c] = total[c] / M
    for m, px, _ in image_groups(block, N):
        f.add_centred((x[px:], mean, rest, square), every, every, m * pixels, C)
    for c in range(C):
        offset[c] = rest[c] / M
        s[c] = inverse_deviation(rest[c] / M, square[c] / M, eps)


# fmt: off
@inner()
def forward(y, winner, x, s, gamma, beta, eps, slope, block, N):
    """Fills y, s and winner, and turns x into xh.

    winner: the tap that won each window; the first of equals; NaN wins over every
    number.
    """
    C, windows, taps, outside = block[1], block[3], block[4], block[5]
    _, of_windows, of_taps, of_outside = lists_of(block)
    mean, offset = np.empty(C, x.dtype), np.empty(C, x.dtype)
    statistics(mean, offset, s, x, eps, block, N)
    for m, px, wi in image_groups(block, N):
        if taps == 1:
            f.forward_unpooled((x[px:], y[wi:], mean, offset, s, gamma, beta, slope),
                               of_taps[0], of_windows, m * windows, C)
        else:
            for tap in range(taps):
                f.forward_pooled((x[px:], y[wi:], winner[wi:], mean, offset, s, gamma, beta,
                                  slope, np.int16(tap), np.int16(0)),
                                 of_taps[tap], of_windows, m * windows, C)
        f.forward_outside((x[px:], mean, offset, s), of_outside, of_outside, m * outside, C)


@inlined()
def backward_sums(total, product, dy, y, winner, xh, slope, block, N):
    """total += sum du, product += sum du xh; turns dy into du."""
    C, windows, taps = block[1], block[3], block[4]
    _, of_windows, of_taps, _ = lists_of(block)
    for m, px, wi in image_groups(block, N):
        f.adjoint_of_u((dy[wi:], y[wi:], slope, total), of_windows, of_windows, m * windows, C)
        for tap in range(taps):
            if taps == 1:
                f.add_products_unpooled((xh[px:], dy[wi:], product),
                                        of_taps[0], of_windows, m * windows, C)
            else:
                f.add_products_pooled((xh[px:], dy[wi:], winner[wi:], np.int16(tap), product),
                                      of_taps[tap], of_windows, m * windows, C)


@inner()
def backward(dx, dgamma, dbeta, dy, y, winner, xh, s, gamma, slope, block, N):
    """Fills dx, dgamma = sum du xh, dbeta = sum du; dx may be xh.

    Turns dy into du, the adjoint of the winning u.
    """
    C, pixels, windows, taps, outside = block[1], block[2], block[3], block[4], block[5]
    _, of_windows, of_taps, of_outside = lists_of(block)
    M, total, product = N * pixels, np.zeros(C), np.zeros(C)
    backward_sums(total, product, dy, y, winner, xh, slope, block, N)
    mean, projection, scale = np.empty_like(s), np.empty_like(s), np.empty_like(s)
    for c in range(C):
        dbeta[c], dgamma[c] = total[c], product[c]
        mean[c], projection[c], scale[c] = total[c] / M, product[c] / M, s[c] * gamma[c]
    for m, px, wi in image_groups(block, N):
        for tap in range(taps):
            if taps == 1:
                f.backward_unpooled((dx[px:], xh[px:], dy[wi:], scale, mean, projection),
                                    of_taps[0], of_windows, m * windows, C)
            else:
                f.backward_pooled((dx[px:], xh[px:], dy[wi:], winner[wi:], scale, mean, projection,
                                   np.int16(tap)),
                                  of_taps[tap], of_windows, m * windows, C)
        f.backward_outside((dx[px:], xh[px:], scale, mean, projection),
                           of_outside, of_outside, m * outside, C)
# fmt: on
