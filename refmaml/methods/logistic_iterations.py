"""The logistic head differentiated through its Newton steps, and not at the optimum.

    W_{j+1} = W_j - D_j,   D_j = G_j H_j^-1               j = 0 .. J-1, W_0 = 0

G and H at W_j are those of logistic_head.py. The steps are full ones, as in the
authors' code. The adjoint of a step, lam = dW_{j+1}:

    U = lam H^-1      dG = -U      dH_c = U_c' D_c      P = X U',  E = X D'
    dX  += R U + (S P) D + (S E) U        (R = Y - Mu: the term of G; then H's two X)
    dZ   = -S P + S (1 - 2 Mu) P E        (Mu in G, S in H; Z = X W_j')
    dX  += dZ W_j
    dlambda += <U, D> - <U, W_j>
    dW_j = lam + dZ'X - lambda U

Derivation. D H = G gives <lam, rD> = <U, rG - D rH>, and W_{j+1} has -D. rH_c = rX' S X
+ X' S rX + X' rS X + rlambda I, so <U, D rH> = sum s (rX D')(X U') + s (X D')(rX U') +
rs E P, class by class.

At the optimum D = 0: dW_j = lam + (-S P)'X - lambda U = lam - U H = 0, and dX and
dlambda are those of the implicit function theorem. Before it they differ: these are
the derivatives of what J steps compute, whether it is a solution or not.
Source: Bertinetto, Henriques, Torr, Vedaldi 2019, section 3.3 and its code.
"""

from dataclasses import dataclass
from typing import Any

from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.logistic_head import LogisticHead
from refmaml.methods.symmetric_solves import (
    columns,
    inner_product,
    times,
    times_transposed,
    transposed_times,
)


@dataclass(frozen=True)
class LogisticIterations(LogisticHead):
    """w = alpha W_J, b = beta: J full Newton steps from 0, and their derivative.

    newton_steps  J
    The other fields: see LogisticHead. It has no second derivative.
    Raises ArgumentError.
    """

    newton_steps: int = 10

    def forward(self, k: Any, X: Array, Y: Array, eta: Array) -> tuple[Array, Array, Any]:
        """w (T, C, F), b (T, C), and what every step needs."""
        ell, alpha, beta = eta
        X, strength = self.extended(k, X, 1), k.xp.exp(ell)
        W = k.xp.zeros((len(X), Y.shape[2], X.shape[2]), X.dtype)
        path = [self.at(k, X, Y, strength, alpha, W)]
        for _ in range(self.newton_steps):
            here = path[-1]
            W = here.W - here.hessians.solve(k, here.G)
            path.append(self.at(k, X, Y, strength, alpha, W))
        return *self.layer(k, alpha * W, beta), path

    def report(self, k: Any, saved: Any) -> dict[str, Array]:
        """That of LogisticHead at the last W."""
        return super().report(k, saved[-1])

    def backward(self, k: Any, saved: Any, dw: Array, db: Array) -> tuple[Array, Array, Any]:
        """dX (T, N, F), deta (T, 3), and nothing for a second derivative."""
        *path, end = saved
        dw = self.of_layer(k, dw, db)
        lam, dX, dstrength = end.alpha * dw, 0 * end.X, 0 * db[:, 0]
        for here in reversed(path):
            X, W, S = here.X, here.W, here.hessians.S
            U, D = (here.hessians.solve(k, a) for a in (lam, here.G))
            P, E = times_transposed(k, X, U), times_transposed(k, X, D)
            dZ = -S * P + S * (1 - 2 * here.Mu) * P * E
            dX = dX + times(k, here.R, U) + times(k, S * P, D) + times(k, S * E, U)
            dX = dX + times(k, dZ, W)
            dstrength = dstrength + inner_product(U, D) - inner_product(U, W)
            lam = lam + transposed_times(k, dZ, X) - here.strength * U
        dell = end.strength * dstrength
        deta = columns(k, dell, inner_product(dw, end.W), db.sum(axis=1))
        return self.without(k, dX), deta, None

    def r_forward(self, *arguments: Any) -> Any:
        """Refused: the derivative of ten steps is not differentiated again."""
        wanted = "LogisticHead, which has second derivatives"
        expect(False, "head", wanted, type(self).__name__)
