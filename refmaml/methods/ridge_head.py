"""The ridge head: a linear layer whose weights solve ridge regression, four passes.

Features X (T, N, F) of the support set, targets Y (T, N, C), a row of W (C, F) for
each output; the head's outputs at features q are alpha q W' + beta.

    W = argmin 1/2 |Y - X W'|^2 + lambda/2 |W|^2,   lambda = e^ell
    W A = Y'X,   A = X'X + lambda I                                  (the solution)
    w = alpha W,  b = beta                (what the linear layer has; see ScaledHead)

Tangent. R = Y - X W'; differentiate W A = Y'X along (rX, rell), rlambda = lambda rell:
rW A = Y'rX - W (rX'X + X'rX) - rlambda W, hence

    rW = (R'rX - (rX W')'X - rlambda W) A^-1

Adjoint. The adjoint of rW -> V A^-1 is U = dW A^-1, as A is symmetric. <U, R'rX> =
<R U, rX>, and <U, (rX W')'X> = <X U', rX W'> = <X U' W, rX>. So, with P = X U',

    dX = R U - P W          dell = -lambda <U, W>
    dW = alpha dw           dalpha = <dw, W>         dbeta = sum of db

Tangent of the adjoint. The product rule on U A = dW, on P and on the three lines:

    rU = (rdW - P'rX - (rX U')'X - rlambda U) A^-1,  rR = -rX W' - X rW'
    rdX = rR U + R rU - rP W - P rW,                 rP = rX U' + X rU'
    rdell = -rlambda <U, W> - lambda (<rU, W> + <U, rW>)
    rdW = ralpha dw + alpha rdw,  rdalpha = <rdw, W> + <dw, rW>,  rdbeta = sum of rdb

Source: Bertinetto, Henriques, Torr, Vedaldi 2019 (R2-D2), eq. 4 to 6: the solution,
its Woodbury form, and the learned scale and bias of the outputs. The derivatives are
derived here. The strength is learned as ell, so that lambda stays positive.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from refmaml.layers.layer import Array
from refmaml.methods.scaled_head import ScaledHead
from refmaml.methods.symmetric_solves import (
    Ridge,
    columns,
    inner_product,
    times,
    times_transposed,
    transposed_times,
)


class Solution(NamedTuple):
    """What `forward` saves: the factorised A, W (T, C, F), R (T, N, C), alpha."""

    system: Ridge
    W: Array
    R: Array
    alpha: Array


class Adjoints(NamedTuple):
    """What `backward` saves: dw (T, C, F), U (T, C, F), P = X U' (T, N, C)."""

    dw: Array
    U: Array
    P: Array


class Tangents(NamedTuple):
    """What `r_forward` saves: rX (T, N, F), rW (T, C, F), rlambda, ralpha."""

    rX: Array
    rW: Array
    rstrength: Array
    ralpha: Array


@dataclass(frozen=True)
class RidgeHead(ScaledHead):
    """w = alpha W, b = beta, where W solves ridge regression; see the module.

    strength (lambda), scale (alpha), shift (beta), intercept: see ScaledHead
    The sum over examples has no factor 1/N: lambda counts against N examples.
    Raises ArgumentError.
    """

    def forward(self, k: Any, X: Array, Y: Array, eta: Array) -> tuple[Array, Array, Solution]:
        """w (T, C, F), b (T, C) and what the other passes need."""
        ell, alpha, beta = eta
        system = Ridge.of(k, self.extended(k, X, 1), k.xp.exp(ell))
        W, R = system.fit(k, Y)
        return *self.layer(k, alpha * W, beta), Solution(system, W, R, alpha)

    def backward(
        self, k: Any, saved: Solution, dw: Array, db: Array
    ) -> tuple[Array, Array, Adjoints]:
        """dX (T, N, F), deta (T, 3), and what `r_backward` needs."""
        system, W, R, alpha = saved
        dw = self.of_layer(k, dw, db)
        U = system.solve(k, alpha * dw)
        P = times_transposed(k, system.x, U)
        dX = times(k, R, U) - times(k, P, W)
        dell = -system.strength * inner_product(U, W)
        deta = columns(k, dell, inner_product(dw, W), db.sum(axis=1))
        return self.without(k, dX), deta, Adjoints(dw, U, P)

    def r_forward(
        self, k: Any, saved: Solution, rX: Array, reta: Array
    ) -> tuple[Array, Array, Tangents]:
        """rw (T, C, F) and rb (T, C) along (rX, reta)."""
        system, W, R, alpha = saved
        rell, ralpha, rbeta = reta
        rX, rstrength = self.extended(k, rX, 0), system.strength * rell
        turned = transposed_times(k, times_transposed(k, rX, W), system.x)
        rW = system.solve(k, transposed_times(k, R, rX) - turned - rstrength * W)
        layer = self.layer(k, ralpha * W + alpha * rW, rbeta)
        return *layer, Tangents(rX, rW, rstrength, ralpha)

    def r_backward(
        self, k: Any, saved: Solution, adjoints: Adjoints, tangents: Tangents,
        rdw: Array, rdb: Array,
    ) -> tuple[Array, Array]:  # fmt: skip
        """rdX (T, N, F) and rdeta (T, 3): the tangents of what `backward` returns."""
        (system, W, R, alpha), (dw, U, P) = saved, adjoints
        rX, rW, rstrength, ralpha = tangents
        rdw = self.of_layer(k, rdw, rdb)
        X, rXU = system.x, times_transposed(k, rX, U)
        turned = transposed_times(k, P, rX) + transposed_times(k, rXU, X)
        rU = system.solve(k, ralpha * dw + alpha * rdw - turned - rstrength * U)
        rR = -times_transposed(k, rX, W) - times_transposed(k, X, rW)
        rP = rXU + times_transposed(k, X, rU)
        rdX = times(k, rR, U) + times(k, R, rU) - times(k, rP, W) - times(k, P, rW)
        both = inner_product(rU, W) + inner_product(U, rW)
        rdell = -rstrength * inner_product(U, W) - system.strength * both
        rdalpha = inner_product(rdw, W) + inner_product(dw, rW)
        rdeta = columns(k, rdell, rdalpha, rdb.sum(axis=1))
        return self.without(k, rdX), rdeta
