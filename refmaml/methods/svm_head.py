"""The support vector head: a multi-class SVM on the support set's features.

Features X (T, N, F), Y (T, N, C) the labels as unit vectors; Z (N, C) solves the dual
of svm_solver.py with the Gram matrix K = X X' + lambda I, and W (C, F) is

    W = Z'X         w = alpha W,  b = beta       (what the linear layer has: ScaledHead)

At the optimum some entries of Z are at their bounds, and stay there; the others solve a
linear system, which is that of the solver's last point: `KKT.solve`, written B = [R]
below. It is symmetric in the sense <[R], R'> = <R, [R']>.

The tangent. rK = rX X' + X rX' + rlambda I:

    rZ = [-rK Z],  rK Z = rX W' + X (Z'rX)' + rlambda Z       rW = rZ'X + Z'rX

The adjoint. dW = alpha dw, dZ = X dW', B = [dZ], V = B'X, and with U = dW - V

    dX = Z U - B W          dell = -lambda <B, Z>          dalpha = <dw, W>

since <dW, rW> = <Z dW, rX> + <B, -rK Z>. (Ridge regression has R/lambda for Z.)

The tangent of the adjoint, at the same bounds:

    rB = [rX dW' + X rdW' - rK B],  rK B = rX V' + X (B'rX)' + rlambda B
    rV = rB'X + B'rX,   rU = rdW - rV,   rdX = rZ U + Z rU - rB W - B rW

Where an entry is at its bound with a multiplier of 0, M has a kink, and these are
derivatives of one side.

Source: Lee, Maji, Ravichandran, Soatto 2019 (MetaOptNet), eq. 5 to 9, with the SVM of
Crammer & Singer 2001. The derivatives are derived here; the implicit differentiation of
a quadratic program: Amos & Kolter 2017 (OptNet), eq. 6 to 8.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from refmaml.arguments import check_integer, check_positive_number, set_fields
from refmaml.layers.layer import Array
from refmaml.methods import svm_solver
from refmaml.methods.scaled_head import ScaledHead
from refmaml.methods.symmetric_solves import (
    columns,
    identity,
    inner_product,
    times,
    times_transposed,
    transposed_times,
)


class Dual(NamedTuple):
    """What `forward` saves: X (T, N, F), Z (T, N, C), W (T, C, F), mu (T,)."""

    X: Array
    strength: Array
    alpha: Array
    Z: Array
    W: Array
    system: svm_solver.KKT
    mu: Array


class Adjoints(NamedTuple):
    """What `backward` saves: dw, dW, V, U (T, C, F), B (T, N, C)."""

    dw: Array
    dW: Array
    B: Array
    V: Array
    U: Array


class Tangents(NamedTuple):
    """What `r_forward` saves."""

    rX: Array
    rZ: Array
    rW: Array
    rstrength: Array
    ralpha: Array


@dataclass(frozen=True)
class SVMHead(ScaledHead):
    """w = alpha W, b = beta, where W is a multi-class SVM; see the module.

    strength (lambda), scale (alpha), shift (beta), intercept: see ScaledHead.
                  MetaOptNet has lambda = 1, which keeps the dual strictly convex
    cost          c > 0: how far a label's dual variable may go; MetaOptNet's 0.1
    solver_steps  iterations of the interior-point method. report["inner_residual"] is
                  the mean product of slack and multiplier over c^2, 0 at the optimum
    Targets are labels.
    Raises ArgumentError.
    """

    cost: float = 0.1
    solver_steps: int = 20
    of_labels = True

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(
            self,
            cost=check_positive_number("cost", self.cost),
            solver_steps=check_integer("solver_steps", self.solver_steps),
        )

    def forward(self, k: Any, X: Array, Y: Array, eta: Array) -> tuple[Array, Array, Any]:
        """w (T, C, F), b (T, C) and what the other passes need."""
        ell, alpha, beta = eta
        X, strength = self.extended(k, X, 1), k.xp.exp(ell)
        K = gram(k, X, strength)
        Z, system, mu = svm_solver.solve(k, K, Y, self.cost, self.solver_steps)
        Z = k.xp.ascontiguousarray(Z)
        W = transposed_times(k, Z, X)
        return *self.layer(k, alpha * W, beta), Dual(X, strength, alpha, Z, W, system, mu)

    def report(self, k: Any, saved: Any) -> dict[str, Array]:
        """{"inner_residual": mu / c^2 (T,)}."""
        return {"inner_residual": saved.mu.real / self.cost**2}

    def solve(self, k: Any, saved: Dual, R: Array) -> Array:
        """[R] (T, N, C)."""
        return k.xp.ascontiguousarray(saved.system.solve(R))

    def backward(self, k: Any, saved: Any, dw: Array, db: Array) -> tuple[Array, Array, Any]:
        """dX (T, N, F), deta (T, 3), and what `r_backward` needs."""
        X, Z, W = saved.X, saved.Z, saved.W
        dw = self.of_layer(k, dw, db)
        dW = saved.alpha * dw
        B = self.solve(k, saved, times_transposed(k, X, dW))
        V = transposed_times(k, B, X)
        U = dW - V
        dX = times(k, Z, U) - times(k, B, W)
        dell = -saved.strength * inner_product(B, Z)
        deta = columns(k, dell, inner_product(dw, W), db.sum(axis=1))
        return self.without(k, dX), deta, Adjoints(dw, dW, B, V, U)

    def r_forward(
        self, k: Any, saved: Any, rX: Array, reta: Array
    ) -> tuple[Array, Array, Tangents]:
        """rw (T, C, F) and rb (T, C) along (rX, reta)."""
        X, Z, W = saved.X, saved.Z, saved.W
        rell, ralpha, rbeta = reta
        rX, rstrength = self.extended(k, rX, 0), saved.strength * rell
        ZrX = transposed_times(k, Z, rX)
        rKZ = times_transposed(k, rX, W) + times_transposed(k, X, ZrX) + rstrength * Z
        rZ = self.solve(k, saved, -rKZ)
        rW = transposed_times(k, rZ, X) + ZrX
        layer = self.layer(k, ralpha * W + saved.alpha * rW, rbeta)
        return *layer, Tangents(rX, rZ, rW, rstrength, ralpha)

    def r_backward(
        self, k: Any, saved: Any, adjoints: Adjoints, tangents: Tangents, rdw: Array, rdb: Array
    ) -> tuple[Array, Array]:
        """rdX (T, N, F) and rdeta (T, 3): the tangents of what `backward` returns."""
        X, Z, W = saved.X, saved.Z, saved.W
        (dw, dW, B, V, U), (rX, rZ, rW, rstrength, ralpha) = adjoints, tangents
        rdw = self.of_layer(k, rdw, rdb)
        rdW, BrX = ralpha * dw + saved.alpha * rdw, transposed_times(k, B, rX)
        rKB = times_transposed(k, rX, V) + times_transposed(k, X, BrX) + rstrength * B
        right = times_transposed(k, rX, dW) + times_transposed(k, X, rdW) - rKB
        rB = self.solve(k, saved, right)
        rU = rdW - transposed_times(k, rB, X) - BrX
        rdX = times(k, rZ, U) + times(k, Z, rU) - times(k, rB, W) - times(k, B, rW)
        both = inner_product(rB, Z) + inner_product(B, rZ)
        rdell = -rstrength * inner_product(B, Z) - saved.strength * both
        rdalpha = inner_product(rdw, W) + inner_product(dw, rW)
        rdeta = columns(k, rdell, rdalpha, rdb.sum(axis=1))
        return self.without(k, rdX), rdeta


def gram(k: Any, X: Array, strength: Array) -> Array:
    """K = X X' + lambda I (T, N, N)."""
    return times_transposed(k, X, X) + strength * identity(k, X.shape[1], X.real.dtype)
