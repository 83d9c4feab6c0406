"""Normalisation over groups of one example on a CPU: reference.py has the formulas.

Arrays are (T, N, L, C): a row of channels for each of L positions, gamma and beta (T,
C A). Threads take tasks. A sum over a group is first a row of C sums over positions,
in which the compiler adds many channels at once; then the sums of the channels of a
group are added. The sums are float64, because a thousand float32 additions in a row
lose a digit.

Both x and rx are centred before they are used, and twice; reference.py says why. An
example is small and stays in the cache, so each pass reads it as often as its formula
is easiest to read.
"""

import numpy as np
from numba import prange

from refmaml.kernels.numba_runtime.compiled import compiled
from refmaml.kernels.numba_runtime.inline_jit import inner

__all__ = [
    "group_norm_forward",
    "group_norm_backward",
    "group_norm_r_forward",
    "group_norm_r_backward",
]


@inner()
def by_position(a, t, C, like):
    """The parameters a of task t as (A, C), contiguous; a is (T, C A), or (1, C A) if
    tasks share them.
    """
    A = a.shape[1] // C
    table = np.empty((A, C), like.dtype)
    for c in range(C):
        for l in range(A):
            table[l, c] = a[t % len(a), c * A + l]
    return table


@inner()
def by_channel(out, t, table):
    """The inverse of `by_position`: fills row t of out (T, C A)."""
    A, C = table.shape
    for c in range(C):
        for l in range(A):
            out[t, c * A + l] = table[l, c]


@inner()
def add_channels(mean, total, G, L):
    """mean[c] is the mean over the group of channel c, from total[c] over L positions.

    The totals are 0 afterwards, for the next sum.
    """
    D = len(total) // G
    for first in range(0, len(total), D):
        group = 0.0
        for c in range(first, first + D):
            group += total[c]
            total[c] = 0
        for c in range(first, first + D):
            mean[c] = group / (D * L)


@inner()
def row_of(s, G, out):
    """out[c] = the number of the group of channel c; s (G,)."""
    D = len(out) // G
    for c in range(len(out)):
        out[c] = s[c // D]


@compiled("examples! examples! table! examples rows rows real")
def group_norm_forward(y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps).

    The variance is that of centred values.
    """
    T, N, L, C = x.shape
    G, A = s.shape[2], gamma.shape[1] // C
    for t in prange(T):
        g, b = by_position(gamma, t, C, x), by_position(beta, t, C, x)
        total, rest, squares = np.zeros(C), np.zeros(C), np.zeros(C)
        mean, offset, square = np.empty(C, x.dtype), np.empty(C, x.dtype), np.empty(C)
        scale = np.empty(C, x.dtype)
        for n in range(N):
            for l in range(L):
                for c in range(C):
                    total[c] += x[t, n, l, c]
            add_channels(mean, total, G, L)
            for l in range(L):
                for c in range(C):
                    centred = x[t, n, l, c] - mean[c]
                    rest[c] += centred
                    squares[c] += centred * centred
            add_channels(offset, rest, G, L)
            add_channels(square, squares, G, L)
            for i in range(G):
                c = i * (C // G)
                variance = square[c] - offset[c] * offset[c]
                s[t, n, i] = 1 / np.sqrt((variance if variance > 0 else 0.0) + eps)
            row_of(s[t, n], G, scale)
            for l in range(L):
                a = l % A
                for c in range(C):
                    normalised = scale[c] * (x[t, n, l, c] - mean[c] - offset[c])
                    xh[t, n, l, c] = normalised
                    y[t, n, l, c] = g[a, c] * normalised + b[a, c]


@compiled("examples! rows! rows! examples examples table rows")
def group_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    T, N, L, C = dy.shape
    G, A = s.shape[2], gamma.shape[1] // C
    for t in prange(T):
        g = by_position(gamma, t, C, dy)
        dg, db, total, product = np.zeros((A, C)), np.zeros((A, C)), np.zeros(C), np.zeros(C)
        mean, slope, scale = np.empty(C, dy.dtype), np.empty(C, dy.dtype), np.empty(C, dy.dtype)
        for n in range(N):
            for l in range(L):
                a = l % A
                for c in range(C):
                    dg[a, c] += dy[t, n, l, c] * xh[t, n, l, c]
                    db[a, c] += dy[t, n, l, c]
                for c in range(C):
                    dxh = g[a, c] * dy[t, n, l, c]
                    total[c] += dxh
                    product[c] += dxh * xh[t, n, l, c]
            add_channels(mean, total, G, L)
            add_channels(slope, product, G, L)
            row_of(s[t, n], G, scale)
            for l in range(L):
                a = l % A
                for c in range(C):
                    dxh = g[a, c] * dy[t, n, l, c]
                    dx[t, n, l, c] = scale[c] * (dxh - mean[c] - xh[t, n, l, c] * slope[c])
        by_channel(dgamma, t, dg)
        by_channel(dbeta, t, db)


@compiled("examples! examples! table! examples examples table rows rows rows")
def group_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    T, N, L, C = rx.shape
    G, A = s.shape[2], gamma.shape[1] // C
    for t in prange(T):
        g, rg, rb = (
            by_position(gamma, t, C, rx),
            by_position(rgamma, t, C, rx),
            by_position(rbeta, t, C, rx),
        )
        total, rest, product = np.zeros(C), np.zeros(C), np.zeros(C)
        mean, offset, slope = np.empty(C, rx.dtype), np.empty(C, rx.dtype), np.empty(C, rx.dtype)
        scale = np.empty(C, rx.dtype)
        for n in range(N):
            for l in range(L):
                for c in range(C):
                    total[c] += rx[t, n, l, c]
            add_channels(mean, total, G, L)
            for l in range(L):
                for c in range(C):
                    centred = rx[t, n, l, c] - mean[c]
                    rest[c] += centred
                    product[c] += centred * xh[t, n, l, c]
            add_channels(offset, rest, G, L)
            add_channels(slope, product, G, L)
            row_of(s[t, n], G, scale)
            for i in range(G):
                rs[t, n, i] = -s[t, n, i] * s[t, n, i] * slope[i * (C // G)]
            for l in range(L):
                a = l % A
                for c in range(C):
                    centred = rx[t, n, l, c] - mean[c] - offset[c]
                    tangent = scale[c] * (centred - xh[t, n, l, c] * slope[c])
                    rxh[t, n, l, c] = tangent
                    ry[t, n, l, c] = rg[a, c] * xh[t, n, l, c] + g[a, c] * tangent + rb[a, c]


@inner()
def add_r_sums(rdg, rdb, total, rtotal, product, rproduct, dy, rdy, xh, rxh, g, rg):
    """Adds one example to the sums of `group_norm_r_backward`; arrays (L, C).

    rdg, rdb (A, C)       rdgamma and rdbeta
    total, product (C,)   sums of dxh and dxh xh over positions; rtotal, rproduct: their
                          tangents
    """
    L, C = dy.shape
    for l in range(L):
        a = l % len(g)
        for c in range(C):
            rdg[a, c] += rdy[l, c] * xh[l, c] + dy[l, c] * rxh[l, c]
            rdb[a, c] += rdy[l, c]
        for c in range(C):
            dxh = g[a, c] * dy[l, c]
            total[c] += dxh
            product[c] += dxh * xh[l, c]
        for c in range(C):
            dxh, rdxh = g[a, c] * dy[l, c], rg[a, c] * dy[l, c] + g[a, c] * rdy[l, c]
            rtotal[c] += rdxh
            rproduct[c] += rdxh * xh[l, c] + dxh * rxh[l, c]


@inner()
def r_results(rdx, dy, rdy, xh, rxh, g, rg, scale, rscale, mean, rmean, slope, rslope):
    """Fills rdx (L, C) of one example from the means over its groups."""
    L, C = dy.shape
    for l in range(L):
        a = l % len(g)
        for c in range(C):
            dxh, rdxh = g[a, c] * dy[l, c], rg[a, c] * dy[l, c] + g[a, c] * rdy[l, c]
            inside = dxh - mean[c] - xh[l, c] * slope[c]
            rinside = rdxh - rmean[c] - rxh[l, c] * slope[c] - xh[l, c] * rslope[c]
            rdx[l, c] = rscale[c] * inside + scale[c] * rinside


@compiled("examples! rows! rows! examples examples examples table examples table rows rows")
def group_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta: the product rule on `group_norm_backward`."""
    T, N, L, C = dy.shape
    G, A = s.shape[2], gamma.shape[1] // C
    for t in prange(T):
        g, rg = by_position(gamma, t, C, dy), by_position(rgamma, t, C, dy)
        rdg, rdb, sums = np.zeros((A, C)), np.zeros((A, C)), np.zeros((4, C))
        means, scales = np.empty((4, C), dy.dtype), np.empty((2, C), dy.dtype)
        for n in range(N):
            add_r_sums(
                rdg, rdb, sums[0], sums[1], sums[2], sums[3],
                dy[t, n], rdy[t, n], xh[t, n], rxh[t, n], g, rg,
            )  # fmt: skip
            for i in range(4):
                add_channels(means[i], sums[i], G, L)
            row_of(s[t, n], G, scales[0])
            row_of(rs[t, n], G, scales[1])
            r_results(
                rdx[t, n], dy[t, n], rdy[t, n], xh[t, n], rxh[t, n], g, rg,
                scales[0], scales[1], means[0], means[1], means[2], means[3],
            )  # fmt: skip
        by_channel(rdgamma, t, rdg)
        by_channel(rdbeta, t, rdb)
