"""Bayesian linear regression on features: the predictive likelihood, four passes.

Support features X (T, N, F) with targets Y (T, N, C), query features Q (T, M, F) with
targets Yq. A row of W (C, F) for each output, noise of variance v = e^ell:

    y = x W' + noise,   W ~ N(W0, v Lambda^-1) row by row,   Lambda = L L'   (the prior)
    A = X'X + Lambda,   W A = Y'X + W0 Lambda =: B              (the posterior's mean W)
    p(y | q) = N(q W', v s),   s = 1 + q a',   a = q A^-1
    f = mean over queries of 1/2 [C log(2 pi v s) + |e|^2/(v s)],   e = y - q W'

Adjoints. Per query, with the mean's factor 1/M in both:

    dz = -e/(v s)/M                            (z = q W')
    ds = 1/2 [C/s - |e|^2/(v s^2)]/M
    dell = sum 1/2 [C - |e|^2/(v s)]/M

and then, with a (M, F) the rows a, U = dW A^-1, R = Y - X W', P = X U', E = X a':

    dQ = dz W + 2 ds a               dW = dz'Q
    dA = -1/2 (U'W + W'U) - a' ds a            (A is symmetric: <dA, rA> for such rA)
    dX = Y U + 2 X dA = R U - P W - 2 E ds a
    dW0 = U Lambda                   dL = (W0'U + U'W0 + 2 dA) L

Tangents. rLambda = rL L' + L rL',  rA = rX'X + X'rX + rLambda:

    rW = (Y'rX + rW0 Lambda + W0 rLambda - W rA) A^-1
    ra = (rQ - a rA) A^-1,  rs = <rQ, a> + <Q, ra>,  rz = rQ W' + Q rW',  re = -rz

Those of the adjoints are the product rule on each line, rU = (rdW - U rA) A^-1.

Source: Harrison, Sharma, Pavone 2018 (ALPaCA): the posterior and its predictive
likelihood. The derivatives are derived here. With v = 1, W0 = 0 and Lambda = lambda I
the mean is ridge regression (ridge_head.py), and E ds a is what the variance adds.
"""

from math import log, pi
from typing import Any, NamedTuple

from refmaml.layers.layer import Array
from refmaml.methods.symmetric_solves import (
    cholesky,
    substitute,
    times,
    times_transposed,
    transposed_times,
)


class Prior(NamedTuple):
    """W0 (T, C, F), L (T, F, F), ell: or their adjoints (ell (T,)), or tangents."""

    W0: Array
    L: Array
    ell: Array


class Posterior(NamedTuple):
    """What `forward` saves; e (T, M, C), s (T, M), the factor of A (T, F, F)."""

    X: Array
    Q: Array
    prior: Prior
    precision: Array  # Lambda
    factor: Array
    W: Array
    R: Array
    a: Array
    e: Array
    s: Array


class Adjoints(NamedTuple):
    """What `backward` saves."""

    dz: Array
    ds: Array
    U: Array
    P: Array
    E: Array
    dL_factor: Array  # W0'U + U'W0 + 2 dA


def square(k: Any, L: Array, rL: Array | None = None) -> Array:
    """L L' (T, F, F), or its tangent rL L' + L rL'."""
    if rL is None:
        return times_transposed(k, L, L)
    return times_transposed(k, rL, L) + times_transposed(k, L, rL)


def twice_symmetric(k: Any, a: Array, b: Array) -> Array:
    """a'b + b'a (T, F, F) of rows a, b (T, C, F)."""
    return transposed_times(k, a, b) + transposed_times(k, b, a)


def posterior_mean(
    k: Any, X: Array, Y: Array, prior: Prior
) -> tuple[Array, Array, Array]:  # fmt: skip
    """W (T, C, F), Lambda, and the factor of A."""
    precision = square(k, prior.L)
    factor = cholesky(k.xp, transposed_times(k, X, X) + precision)
    W = substitute(factor, transposed_times(k, Y, X) + times(k, prior.W0, precision))
    return W, precision, factor


def forward(
    k: Any, X: Array, Y: Array, Q: Array, Yq: Array, prior: Prior
) -> tuple[Array, Posterior]:
    """f (T,), the mean negative log-likelihood of the queries, and what is saved."""
    W, precision, factor = posterior_mean(k, X, Y, prior)
    a = substitute(factor, Q)
    e, s = Yq - times_transposed(k, Q, W), 1 + (Q * a).sum(axis=2)
    C, M = e.shape[2], e.shape[1]
    v = k.xp.exp(prior.ell)
    terms = C * (log(2 * pi) + prior.ell + k.xp.log(s)) + (e * e).sum(axis=2) / (v * s)
    R = Y - times_transposed(k, X, W)
    saved = Posterior(X, Q, prior, precision, factor, W, R, a, e, s)
    return terms.sum(axis=1) / (2 * M), saved


def backward(k: Any, saved: Posterior) -> tuple[Array, Array, Prior, Adjoints]:
    """dX, dQ, the Prior of adjoints, and what `r_backward` needs."""
    X, Q, prior, precision, factor, W, R, a, e, s = saved
    M, C, vs = e.shape[1], e.shape[2], k.xp.exp(prior.ell) * s
    q = (e * e).sum(axis=2) / vs
    dz, ds = -e / vs[..., None] / M, (C - q) / s / (2 * M)
    dell = (C - q).sum(axis=1) / (2 * M)
    U = substitute(factor, transposed_times(k, dz, Q))
    P, E, weighted = times_transposed(k, X, U), times_transposed(k, X, a), ds[..., None] * a
    dQ = times(k, dz, W) + 2 * weighted
    dX = times(k, R, U) - times(k, P, W) - 2 * times(k, E, weighted)
    both = twice_symmetric(k, prior.W0, U) - twice_symmetric(k, W, U)
    both = both - 2 * transposed_times(k, weighted, a)
    dprior = Prior(times(k, U, precision), times(k, both, prior.L), dell)
    return dX, dQ, dprior, Adjoints(dz, ds, U, P, E, both)


class Tangents(NamedTuple):
    """What `r_forward` saves."""

    rX: Array
    rQ: Array
    rprior: Prior
    rprecision: Array
    rA: Array
    rW: Array
    ra: Array
    re: Array
    rs: Array


def r_forward(k: Any, saved: Posterior, Y: Array, rX: Array, rQ: Array, rprior: Prior) -> Tangents:
    """Tangents along (rX, rQ, rprior)."""
    X, Q, prior, precision, factor, W, _, a, _, _ = saved
    rprecision = square(k, prior.L, rprior.L)
    rA = twice_symmetric(k, rX, X) + rprecision
    rB = transposed_times(k, Y, rX) + times(k, rprior.W0, precision)
    rW = substitute(factor, rB + times(k, prior.W0, rprecision) - times(k, W, rA))
    ra = substitute(factor, rQ - times(k, a, rA))
    re = -times_transposed(k, rQ, W) - times_transposed(k, Q, rW)
    rs = (rQ * a).sum(axis=2) + (Q * ra).sum(axis=2)
    return Tangents(rX, rQ, rprior, rprecision, rA, rW, ra, re, rs)


def r_backward(
    k: Any, saved: Posterior, adjoints: Adjoints, tangents: Tangents
) -> tuple[Array, Array, Prior]:
    """rdX, rdQ and the Prior of the adjoints' tangents."""
    X, Q, prior, precision, factor, W, R, a, e, s = saved
    (dz, ds, U, P, E, both), rell = adjoints, tangents.rprior.ell
    rX, rQ, rprior, rprecision, rA, rW, ra, re, rs = tangents
    M, vs = e.shape[1], k.xp.exp(prior.ell) * s
    q, growth = (e * e).sum(axis=2) / vs, rell + rs / s  # growth = R{v s} / (v s)
    rq = 2 * (e * re).sum(axis=2) / vs - q * growth
    rdz = -re / vs[..., None] / M - dz * growth[..., None]
    rds = -rq / s / (2 * M) - ds * rs / s
    rU = substitute(
        factor, transposed_times(k, rdz, Q) + transposed_times(k, dz, rQ) - times(k, U, rA)
    )
    weighted, rweighted = ds[..., None] * a, rds[..., None] * a + ds[..., None] * ra
    rdQ = times(k, rdz, W) + times(k, dz, rW) + 2 * rweighted
    rR = -times_transposed(k, rX, W) - times_transposed(k, X, rW)
    rP = times_transposed(k, rX, U) + times_transposed(k, X, rU)
    rE = times_transposed(k, rX, a) + times_transposed(k, X, ra)
    rdX = times(k, rR, U) + times(k, R, rU) - times(k, rP, W) - times(k, P, rW)
    rdX = rdX - 2 * times(k, rE, weighted) - 2 * times(k, E, rweighted)
    rboth = twice_symmetric(k, rprior.W0 - rW, U) + twice_symmetric(k, prior.W0 - W, rU)
    rboth = rboth - 2 * transposed_times(k, rweighted, a) - 2 * transposed_times(k, weighted, ra)
    rdL = times(k, rboth, prior.L) + times(k, both, rprior.L)
    rdW0 = times(k, rU, precision) + times(k, U, rprecision)
    return rdX, rdQ, Prior(rdW0, rdL, -rq.sum(axis=1) / (2 * M))
