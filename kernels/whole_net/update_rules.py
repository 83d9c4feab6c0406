"""Update rules of the inner loop: the step, and its pullback, on vectors of one task.

    h = s g + wd phi             s: the clipping factor, limit / (|g| + 1e-6) or 1
    SGD    m' = mu m + f h       d = wh h + wm m'
    ADAM   m' = b1 m + (1 - b1) h,   v' = b2 v + (1 - b2) h^2
           d = (m'/c1) / (sqrt(v'/c2 + root) + eps) + wdd phi
    phi' = phi - A d

The pullback takes lam and the adjoints of the state after the step. It leaves those
before the step in their place, adds to lam what phi gets by weight decay, and gives
-gam, minus the adjoint of g: refmaml/update_rules has the derivations. Where a
derivative does not exist, the numbers become infinite, which the caller detects.

A loop writes one array: LLVM makes vector instructions of it, as few comparisons show
that the arrays do not overlap. The loops go over a block that stays in the first cache.
Every number is of the precision of the arrays; an integer would make them float64.
"""

from math import sqrt

import numpy as np

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.whole_net.rule_numbers import (
    B1,
    B2,
    C1,
    C2,
    DECAY,
    DECOUPLED,
    EPS,
    FIXED,
    MOMENTUM,
    MU,
    N_B1,
    N_B2,
    NN_B2,
    NORM_EPS,
    NORM_LIMIT,
    ONE,
    ROOT,
    SGD,
    SIG_M,
    SIG_V,
    WH,
    WM,
    ZERO,
    F,
    G,
    M,
    V,
)  # fmt: skip

BLOCK = 1024


@inner()
def row_of(group, k, rows):
    """The row of g, m or v of step k; order 1 has one of each."""
    steps = (rows - FIXED) // 3
    return FIXED + group * steps + (k if steps > 1 else 0)


@inner()
def dot(a, b):
    """<a, b>, by 32 sums side by side."""
    lanes, whole = np.zeros(32, a.dtype), len(a) // 32 * 32
    for i in range(0, whole, 32):
        for j in range(32):
            lanes[j] += a[i + j] * b[i + j]
    for i in range(whole, len(a)):
        lanes[0] += a[i] * b[i]
    return lanes.sum()


@inner()
def clip_factor(g, n):
    """s."""
    if n[NORM_LIMIT] == n[ZERO]:
        return n[ONE]
    return min(n[NORM_LIMIT] / (sqrt(dot(g, g)) + n[NORM_EPS]), n[ONE])


# ---- the step ------------------------------------------------------------------------


@inner()
def sgd_step(out, phi, A, m, g, s, n):
    for i in range(len(m)):
        m[i] = n[MU] * m[i] + n[F] * (s * g[i] + n[DECAY] * phi[i])
    for i in range(len(m)):
        h = s * g[i] + n[DECAY] * phi[i]
        out[i] = phi[i] - A[i] * (n[WH] * h + n[WM] * m[i])


@inner()
def adam_step(out, phi, A, m, v, m_before, v_before, g, s, n):
    for i in range(len(m)):
        m[i] = n[B1] * m_before[i] + n[N_B1] * (s * g[i] + n[DECAY] * phi[i])
    for i in range(len(v)):
        h = s * g[i] + n[DECAY] * phi[i]
        v[i] = n[B2] * v_before[i] + n[N_B2] * h * h
    for i in range(len(v)):
        d = m[i] / n[C1] / (sqrt(v[i] / n[C2] + n[ROOT]) + n[EPS])
        out[i] = phi[i] - A[i] * (d + n[DECOUPLED] * phi[i])


@external("int64, int64, F[::1], F[::1], F[::1], F[::1], F[:,::1]", on_demand=True)
def take_step(kind, k, out, phi, A, n, memory):
    """phi' in out, from g in the rule's memory, and the state after the step there."""
    rows = len(memory)
    g, momentum = memory[row_of(G, k, rows)], memory[MOMENTUM]
    m, v = memory[row_of(M, k, rows)], memory[row_of(V, k, rows)]
    before = max(k - 1, 0)
    m0, v0 = memory[row_of(M, before, rows)], memory[row_of(V, before, rows)]
    s = clip_factor(g, n)
    if k == 0:
        momentum[:], m[:], v[:] = n[ZERO], n[ZERO], n[ZERO]
    for lo in range(0, len(phi), BLOCK):
        b = slice(lo, min(lo + BLOCK, len(phi)))
        if kind == SGD:
            sgd_step(out[b], phi[b], A[b], momentum[b], g[b], s, n)
        else:
            adam_step(out[b], phi[b], A[b], m[b], v[b], m0[b], v0[b], g[b], s, n)


# ---- the pullback --------------------------------------------------------------------


@inner()
def sgd_pullback(out, lam, A, sig, n):
    """-gam of s g in out, lam and the adjoint of m before the step."""
    for i in range(len(lam)):
        dd = -A[i] * lam[i]
        out[i] = -(n[F] * (sig[i] + n[WM] * dd) + n[WH] * dd)
    for i in range(len(lam)):
        sig[i] = n[MU] * (sig[i] - n[WM] * A[i] * lam[i])
    if n[DECAY] != n[ZERO]:
        for i in range(len(lam)):
            lam[i] -= n[DECAY] * out[i]


@inner()
def adam_pullback(out, lam, phi, A, m, v, g, sig_m, sig_v, s, n):
    """-gam of s g in out, lam and the adjoints of m and v before the step."""
    for i in range(len(lam)):  # nu
        D = sqrt(v[i] / n[C2] + n[ROOT]) + n[EPS]
        sig_m[i] -= A[i] * lam[i] / (n[C1] * D)
    for i in range(len(lam)):  # om
        r = sqrt(v[i] / n[C2] + n[ROOT])
        D = r + n[EPS]
        dD = A[i] * lam[i] * (m[i] / n[C1]) / (D * D)
        du = dD / (r + r) if r != n[ZERO] or dD != n[ZERO] else n[ZERO]
        sig_v[i] += du / n[C2]
    for i in range(len(lam)):
        h = s * g[i] + n[DECAY] * phi[i]
        out[i] = -(n[N_B1] * sig_m[i] + n[NN_B2] * h * sig_v[i])
    for i in range(len(lam)):
        lam[i] -= n[DECAY] * out[i] + n[DECOUPLED] * A[i] * lam[i]
    for i in range(len(lam)):
        sig_m[i] *= n[B1]
    for i in range(len(lam)):
        sig_v[i] *= n[B2]


@inner()
def unclip(v, g, s, n):
    """The adjoint of g from that of s g, in place, where the norm of g is clipped."""
    if s != n[ONE]:
        norm = sqrt(dot(g, g))
        radial = dot(g, v) / (norm * (norm + n[NORM_EPS]))
        for i in range(len(g)):
            v[i] = s * (v[i] - radial * g[i])


@external("int64, int64, F[::1], F[::1], F[::1], F[::1], F[::1], F[:,::1]", on_demand=True)
def pull_back(kind, k, out, lam, phi, A, n, memory):
    """-gam of step k in out, for g itself; lam with the adjoint by weight decay."""
    rows = len(memory)
    g, sig_m, sig_v = memory[row_of(G, k, rows)], memory[SIG_M], memory[SIG_V]
    m, v = memory[row_of(M, k, rows)], memory[row_of(V, k, rows)]
    s = clip_factor(g, n)
    for lo in range(0, len(lam), BLOCK):
        b = slice(lo, min(lo + BLOCK, len(lam)))
        if kind == SGD:
            sgd_pullback(out[b], lam[b], A[b], sig_m[b], n)
        else:
            adam_pullback(out[b], lam[b], phi[b], A[b], m[b], v[b], g[b], sig_m[b], sig_v[b], s, n)
    unclip(out, g, s, n)
