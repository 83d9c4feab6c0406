"""Group norm with a piecewise linear activation, for one task: the four passes.

    xh = (x - <x>) s     u = gamma xh + beta     y = u where u > 0, slope u elsewhere

<.> is the mean over a group of one example. reference.py is the reference, and cpu.py
has the same passes for all tasks, without the activation. All arrays are flat; images
are rows of channels. x becomes xh in place, rx becomes rxh, and the branch of the
activation is read off y, as in norm_act_pool/cpu.py. slope 1: no activation.

Sums over positions are float64 and one for each channel; then the channels of a group
are added. An example is small and stays in the cache.

`block` (row_lists) has integers that follow from the shapes:

    G C L A    groups, channels, positions, and numbers of gamma for each channel (1, L)
    positions  where the row of each position begins                                 (L)
    rows       where its row of gamma and beta begins                                (L)
"""

import numpy as np

from refmaml.kernels.batch_norm.cpu import inverse_deviation
from refmaml.kernels.group_norm import formulas as f
from refmaml.kernels.group_norm.cpu import add_channels, row_of
from refmaml.kernels.norm_act_pool import formulas as shared
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined

HEADER = 4


def row_lists(G, C, L, A):
    """The block."""
    positions = np.arange(L) * C
    rows = positions if A > 1 else np.zeros(L, int)
    return np.concatenate([[G, C, L, A], positions, rows]).astype(np.int64)


@inlined()
def lists_of(block):
    """(G, C, L, A, positions, rows)."""
    L, end = block[2], HEADER + block[2]
    return block[0], block[1], L, block[3], block[HEADER:end], block[end : end + L]


def arrays(count):
    """The types of so many arrays of the precision."""
    return ", ".join(["F[::1]"] * count)


# fmt: off
@external(f"{arrays(5)}, F, F, int64[::1], int64", on_demand=True)
def forward(y, x, s, gamma, beta, eps, slope, block, N):
    """Fills y and s = 1 / sqrt(var + eps) (N, G), and turns x into xh."""
    G, C, L, _, positions, rows = lists_of(block)
    total, rest, squares, square = np.zeros(C), np.zeros(C), np.zeros(C), np.zeros(C)
    mean, offset, scale = np.empty(C, x.dtype), np.empty(C, x.dtype), np.empty(C, x.dtype)
    for n in range(N):
        xs, ys, sn = x[n * L * C:], y[n * L * C:], s[n * G:]
        shared.add_values((xs, total), 0, 0, positions, positions, L, C)
        add_channels(mean, total, G, L)
        shared.add_centred((xs, mean, rest, squares), 0, 0, positions, positions, L, C)
        add_channels(offset, rest, G, L)
        add_channels(square, squares, G, L)
        for g in range(G):
            c = g * (C // G)
            sn[g] = inverse_deviation(offset[c], square[c], eps)
        row_of(sn, G, scale)
        f.normalise((xs, ys, gamma, beta, mean, offset, scale, slope), 0, 0, positions, rows, L, C)


@external(f"{arrays(8)}, F, int64[::1], int64", on_demand=True)
def backward(dx, dgamma, dbeta, dy, y, xh, s, gamma, slope, block, N):
    """Fills dx, dgamma = sum du xh and dbeta = sum du; dx may be xh.

    Turns dy into du, the adjoint of u.
    """
    G, C, L, A, positions, rows = lists_of(block)
    of_beta, of_gamma, total, product = np.zeros(C), np.zeros(C), np.zeros(C), np.zeros(C)
    mean, projection, scale = np.empty(C, dx.dtype), np.empty(C, dx.dtype), np.empty(C, dx.dtype)
    dgamma[:], dbeta[:] = 0, 0
    for n in range(N):
        xhs, du, at = xh[n * L * C:], dy[n * L * C:], n * L * C
        shared.adjoint_of_u((du, y[at:], slope, of_beta), 0, 0, positions, positions, L, C)
        f.add_products((xhs, du, gamma, total, product, of_gamma), 0, 0, positions, rows, L, C)
        if A > 1:
            f.add_gradients((xhs, du, dgamma, dbeta), 0, 0, positions, positions, L, C)
        add_channels(mean, total, G, L)
        add_channels(projection, product, G, L)
        row_of(s[n * G:], G, scale)
        f.adjoint((dx[at:], xhs, du, gamma, scale, mean, projection), 0, 0, positions, rows, L, C)
    if A == 1:
        for c in range(C):
            dgamma[c], dbeta[c] = of_gamma[c], of_beta[c]


@external(f"{arrays(9)}, F, int64[::1], int64", on_demand=True)
def r_forward(ry, rs, rx, y, xh, s, gamma, rgamma, rbeta, slope, block, N):
    """Fills ry and rs along (rx, rgamma, rbeta), and turns rx into rxh."""
    G, C, L, _, positions, rows = lists_of(block)
    total, rest, product = np.zeros(C), np.zeros(C), np.zeros(C)
    mean, offset = np.empty(C, rx.dtype), np.empty(C, rx.dtype)
    projection, scale = np.empty(C, rx.dtype), np.empty(C, rx.dtype)
    for n in range(N):
        rxs, xhs, sn, at = rx[n * L * C:], xh[n * L * C:], s[n * G:], n * L * C
        shared.add_values((rxs, total), 0, 0, positions, positions, L, C)
        add_channels(mean, total, G, L)
        shared.add_tangents((rxs, xhs, mean, rest, product), 0, 0, positions, positions, L, C)
        add_channels(offset, rest, G, L)
        add_channels(projection, product, G, L)
        for g in range(G):
            rs[n * G + g] = -sn[g] * sn[g] * projection[g * (C // G)]
        row_of(sn, G, scale)
        f.r_normalise((rxs, xhs, ry[at:], y[at:], gamma, rgamma, rbeta, mean, offset, projection,
                       scale, slope), 0, 0, positions, rows, L, C)


@external(f"{arrays(11)}, F, int64[::1], int64", on_demand=True)
def r_backward(rxh, rdgamma, rdbeta, du, rdy, y, xh, s, rs, gamma, rgamma, slope, block, N):
    """The product rule on `backward`. Fills rdgamma and rdbeta; rxh becomes rdx, rdy
    rdu.

    du is what `backward` left in dy.
    """
    G, C, L, A, positions, rows = lists_of(block)
    sums, unused, of_beta, of_gamma = np.zeros((4, C)), np.zeros(C), np.zeros(C), np.zeros(C)
    means, scales = np.empty((4, C), rxh.dtype), np.empty((2, C), rxh.dtype)
    rdgamma[:], rdbeta[:] = 0, 0
    for n in range(N):
        at = n * L * C
        xhs, rxhs, dus, rdu = xh[at:], rxh[at:], du[at:], rdy[at:]
        shared.r_adjoint_of_u((rdu, dus, y[at:], slope, unused, of_beta),
                              0, 0, positions, positions, L, C)
        f.r_add_products((xhs, rxhs, dus, rdu, gamma, rgamma, sums[0], sums[1], sums[2], sums[3],
                          of_gamma), 0, 0, positions, rows, L, C)
        if A > 1:
            f.r_add_gradients((xhs, rxhs, dus, rdu, rdgamma, rdbeta),
                              0, 0, positions, positions, L, C)
        for i in range(4):
            add_channels(means[i], sums[i], G, L)
        row_of(s[n * G:], G, scales[0])
        row_of(rs[n * G:], G, scales[1])
        f.r_result((xhs, rxhs, dus, rdu, gamma, rgamma, scales[0], scales[1], means[0], means[2],
                    means[1], means[3]), 0, 0, positions, rows, L, C)
    if A == 1:
        for c in range(C):
            rdgamma[c], rdbeta[c] = of_gamma[c], of_beta[c]
# fmt: on
