"""ALPaCA's meta-gradient with every choice a value of `Solved.likelihood`.

"method"          M = mean of 1/2 [C log(2 pi v s) + |e|^2/(v s)]
"noise alone"     s = 1: the uncertainty of the weights is left out
"fixed spread"    s is a constant
"no log"          M = mean of 1/2 |e|^2/(v s)
"one log"         log s + log v once, and not for each of the C outputs
"squared error"   M = mean of 1/2 |e|^2
"bare prior"      A = X'X + v L L': W ~ N(W0, (L L')^-1), without v
"zero mean"       W0 = 0
"bare mean"       W A = Y'X + W0, without L L'

The formulas are those of refmaml/methods/bayesian_regression.py, on dense matrices.
"""

from typing import NamedTuple

import numpy as np

from refmaml.methods.bayesian_regression import Prior
from refmaml.methods.features import Features, body_of
from refmaml.methods.solved_head import targets


class Spread(NamedTuple):
    """e (T, M, C) and s (T, M) of the queries, and the noise v."""

    e: np.ndarray
    s: np.ndarray
    v: float

    def adjoints(self, kind):
        """dz (T, M, C), ds (T, M), dell (T,) of the mean over queries."""
        (_, M, C), v, s = self.e.shape, self.v, self.s
        if kind == "squared error":
            return -self.e / M, 0 * s, np.zeros(len(s))
        logs = {"no log": 0, "one log": 1}.get(kind, C)
        q = (self.e**2).sum(axis=2) / (v * s)
        ds = (logs - q) / s / (2 * M)
        still = kind in ("noise alone", "fixed spread")
        dell = (logs - q).sum(axis=1) / (2 * M)
        return -self.e / (v * s)[..., None] / M, 0 * ds if still else ds, dell


def alpaca_rows(case, method, variant, sets):
    """[dM_t/dtheta, dM_t/dL, dM_t/dell] of each task, (T, M)."""
    net, body = case.net, body_of(case.net)
    theta = case.theta[None, : body.num_params]
    passes = [Features.of(body, theta, x) for x in (sets.x_support, sets.x_query)]
    X, Q = (method.extended(net, part.X) for part in passes)
    Y, Yq = (targets(net, X, y) for y in (sets.y_support, sets.y_query))
    prior, kind = method.prior(net, case.meta, len(X)), variant.likelihood
    dX, dQ, dprior = derivatives(X, Q, Y, Yq, prior, kind)
    if variant.through == "query":
        dX, dprior = 0 * dX, Prior(0 * dprior.W0, 0 * dprior.L, dprior.ell)
    if variant.through == "support":
        dQ = 0 * dQ
    parts = [
        part.pullback(np.ascontiguousarray(method.without(net, dx)))[0]
        for part, dx in zip(passes, (dX, dQ), strict=True)
    ]
    return method.rows(net, sum(parts), dprior)


def derivatives(X, Q, Y, Yq, prior, kind):
    """dX, dQ and the Prior of adjoints, of each task."""
    v, L = float(np.exp(prior.ell)), prior.L
    factor = v if kind == "bare prior" else 1.0
    W0 = 0 * prior.W0 if kind == "zero mean" else prior.W0
    precision = factor * L @ turned(L)
    A = turned(X) @ X + precision
    B = turned(Y) @ X + (W0 if kind == "bare mean" else W0 @ precision)
    W, a = solved(A, B), solved(A, Q)
    s = 1 + (Q * a).sum(axis=2)
    spread = Spread(Yq - Q @ turned(W), np.ones_like(s) if kind == "noise alone" else s, v)
    dz, ds, dell = spread.adjoints(kind)
    U, weighted = solved(A, turned(dz) @ Q), ds[..., None] * a
    dA = -(turned(U) @ W + turned(W) @ U) / 2 - turned(weighted) @ a
    dprecision = dA if kind == "bare mean" else dA + (turned(W0) @ U + turned(U) @ W0) / 2
    dW0 = {"zero mean": 0 * U, "bare mean": U}.get(kind, U @ precision)
    if kind == "bare prior":
        dell = dell + (dprecision * precision).sum(axis=(1, 2))
    dL = 2 * factor * dprecision @ L
    return Y @ U + 2 * X @ dA, dz @ W + 2 * weighted, Prior(dW0, dL, dell)


def turned(a):
    """The transpose of each task's matrix."""
    return a.swapaxes(1, 2)


def solved(A, B):
    """B A^-1 of each task; A is symmetric."""
    return turned(np.linalg.solve(A, turned(B)))
