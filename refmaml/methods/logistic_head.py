"""The logistic head: one ridge-penalised logistic regression for each class.

Features X (T, N, F) of the support set, Y (T, N, C) the labels as unit vectors, a row
of W (C, F) for each class; Z = X W', Mu = sigmoid(Z):

    W = argmin sum_nc [log(1 + e^z) - y z] + lambda/2 |W|^2,   lambda = e^ell
    G = (Mu - Y)'X + lambda W = 0                              (what the optimum solves)
    H_c = X' diag(S_c) X + lambda I,   S = Mu (1 - Mu)         (class c's Hessian)

Newton's steps. W <- W - t G H^-1, each class with its own H and step length t, which
logistic_steps.py chooses so that the objective never rises.

The tangent at the optimum. Differentiate G = 0 along (rX, rlambda = lambda rell):

    rW H = (Y - Mu)'rX - (S (rX W'))'X - rlambda W

The adjoint there. U_c = dW_c H_c^-1, P = X U', R = Y - Mu; as for the ridge head, with
S between the two X:

    dX = R U - (S P) W      dell = -lambda <U, W>      (and dalpha, dbeta as there)

The tangent of the adjoint. h = rX W' + X rW' = R{Z}, rS = S (1 - 2 Mu) h, rR = -S h:

    rU H = rdW - (S P)'rX - (rS P + S (rX U'))'X - rlambda U
    rdX = rR U + R rU - (rS P + S rP) W - (S P) rW,   rP = rX U' + X rU'

H_c is Z'Z + lambda I with Z = diag(S_c^1/2) X, so each class is a `Ridge` system.
These derivatives are those of the optimum: they hold where G = 0, and the report says
how nearly that is so. logistic_iterations.py differentiates the steps instead.

Source: Bertinetto, Henriques, Torr, Vedaldi 2019 (LR-D2), eq. 7 to 9, who differentiate
through a fixed number of Newton steps. The implicit derivatives are derived here.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from refmaml.arguments import check_integer, set_fields
from refmaml.layers.layer import Array
from refmaml.layers.logistic import sigmoid
from refmaml.methods.logistic_steps import step_length
from refmaml.methods.ridge_head import Adjoints
from refmaml.methods.scaled_head import ScaledHead
from refmaml.methods.symmetric_solves import (
    Ridge,
    columns,
    inner_product,
    times,
    times_transposed,
    transposed_times,
)


class Systems(NamedTuple):
    """H_c of every class: C systems for each task.

    ridge  the T C systems of Z_c (N, F), class by class within a task
    S      (T, N, C)
    """

    ridge: Ridge
    S: Array

    def solve(self, k: Any, V: Array) -> Array:
        """V_c H_c^-1 for each row of V (T, C, F)."""
        return self.ridge.solve(k, V.reshape(-1, 1, V.shape[2])).reshape(V.shape)


def systems(k: Any, X: Array, S: Array, strength: Array) -> Systems:
    """H_c = X' diag(S_c) X + lambda I, factorised."""
    Z = k.xp.sqrt(S).swapaxes(1, 2)[..., None] * X[:, None]  # (T, C, N, F)
    return Systems(Ridge.of(k, Z.reshape(-1, *X.shape[1:]), strength), S)


class Optimum(NamedTuple):
    """What `forward` saves. W, G (T, C, F); Mu, R = Y - Mu (T, N, C)."""

    X: Array
    strength: Array
    alpha: Array
    W: Array
    G: Array
    Mu: Array
    R: Array
    hessians: Systems


class Tangents(NamedTuple):
    """What `r_forward` saves. rX (T, N, F), rW (T, C, F), h = R{Z} (T, N, C)."""

    rX: Array
    rW: Array
    h: Array
    rstrength: Array
    ralpha: Array


@dataclass(frozen=True)
class LogisticHead(ScaledHead):
    """w = alpha W, b = beta, where W solves logistic regressions; see the module.

    strength (lambda), scale (alpha), shift (beta), intercept: see ScaledHead
    newton_steps  Newton steps from W = 0; six are enough where lambda is about the size
                  of |x|^2 or larger, twenty where it is a millionth. After them the
                  gradient of the objective should be at rounding;
                  report["inner_residual"] is |G| / |lambda W|
    Targets are labels. Each class is told from all others, so two outputs of two
    classes are each other's negatives.
    Raises ArgumentError.
    """

    newton_steps: int = 16
    of_labels = True

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, newton_steps=check_integer("newton_steps", self.newton_steps))

    def forward(self, k: Any, X: Array, Y: Array, eta: Array) -> tuple[Array, Array, Any]:
        """w (T, C, F), b (T, C) and what the other passes need."""
        ell, alpha, beta = eta
        X, strength = self.extended(k, X, 1), k.xp.exp(ell)
        W = k.xp.zeros((len(X), Y.shape[2], X.shape[2]), X.dtype)
        here = self.at(k, X, Y, strength, alpha, W)
        for _ in range(self.newton_steps):
            D = here.hessians.solve(k, here.G)
            t = step_length(k, here, Y, D)
            here = self.at(k, X, Y, strength, alpha, here.W - t * D)
        return *self.layer(k, alpha * here.W, beta), here

    def at(self, k: Any, X: Array, Y: Array, strength: Array, alpha: Array, W: Array) -> Optimum:
        """Everything at one W."""
        Mu = sigmoid(k.xp, times_transposed(k, X, W))
        R = Y - Mu
        G = strength * W - transposed_times(k, R, X)
        return Optimum(X, strength, alpha, W, G, Mu, R, systems(k, X, Mu * (1 - Mu), strength))

    def report(self, k: Any, saved: Any) -> dict[str, Array]:
        """{"inner_residual": |G| / |lambda W| (T,)}: 0 at the optimum, 0/0 is 0."""
        xp, pull = k.xp, saved.strength * saved.W
        G, size = (xp.sqrt(inner_product(a.real, a.real)) for a in (saved.G, pull))
        return {"inner_residual": G / xp.where(size > 0, size, 1)}

    def backward(self, k: Any, saved: Any, dw: Array, db: Array) -> tuple[Array, Array, Any]:
        """dX (T, N, F), deta (T, 3), and what `r_backward` needs."""
        X, W, S = saved.X, saved.W, saved.hessians.S
        dw = self.of_layer(k, dw, db)
        U = saved.hessians.solve(k, saved.alpha * dw)
        P = times_transposed(k, X, U)
        dX = times(k, saved.R, U) - times(k, S * P, W)
        dell = -saved.strength * inner_product(U, W)
        deta = columns(k, dell, inner_product(dw, W), db.sum(axis=1))
        return self.without(k, dX), deta, Adjoints(dw, U, P)

    def r_forward(
        self, k: Any, saved: Optimum, rX: Array, reta: Array
    ) -> tuple[Array, Array, Tangents]:
        """rw (T, C, F) and rb (T, C) along (rX, reta)."""
        X, W, S, alpha = saved.X, saved.W, saved.hessians.S, saved.alpha
        rell, ralpha, rbeta = reta
        rX = self.extended(k, rX, 0)
        rstrength, turned = saved.strength * rell, times_transposed(k, rX, W)
        moved = transposed_times(k, saved.R, rX) - transposed_times(k, S * turned, X)
        rW = saved.hessians.solve(k, moved - rstrength * W)
        h = turned + times_transposed(k, X, rW)
        layer = self.layer(k, ralpha * W + alpha * rW, rbeta)
        return *layer, Tangents(rX, rW, h, rstrength, ralpha)

    def r_backward(
        self, k: Any, saved: Optimum, adjoints: Adjoints, tangents: Tangents,
        rdw: Array, rdb: Array,
    ) -> tuple[Array, Array]:  # fmt: skip
        """rdX (T, N, F) and rdeta (T, 3): the tangents of what `backward` returns."""
        X, W, S, R, alpha = saved.X, saved.W, saved.hessians.S, saved.R, saved.alpha
        (dw, U, P), (rX, rW, h, rstrength, ralpha) = adjoints, tangents
        rdw = self.of_layer(k, rdw, rdb)
        rS, rXU = S * (1 - 2 * saved.Mu) * h, times_transposed(k, rX, U)
        turned = transposed_times(k, S * P, rX) + transposed_times(k, rS * P + S * rXU, X)
        rU = saved.hessians.solve(k, ralpha * dw + alpha * rdw - turned - rstrength * U)
        rP = rXU + times_transposed(k, X, rU)
        rdX = times(k, -S * h, U) + times(k, R, rU)
        rdX = rdX - times(k, rS * P + S * rP, W) - times(k, S * P, rW)
        both = inner_product(rU, W) + inner_product(U, rW)
        rdell = -rstrength * inner_product(U, W) - saved.strength * both
        rdalpha = inner_product(rdw, W) + inner_product(dw, rW)
        rdeta = columns(k, rdell, rdalpha, rdb.sum(axis=1))
        return self.without(k, rdX), rdeta
