"""Curvature matrices as scipy LinearOperators.

H @ v, scipy.sparse.linalg.eigsh(H) and cg(H, b) work without ever forming H.
"""

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from refmaml.arrays import described, expect_array
from refmaml.errors import expect


class CurvatureOperator(LinearOperator):
    """v -> mean over tasks of product(primal, v), e.g. of a net's hvp; symmetric.

    theta (P,), x (T, N, ...), y (T, N, ...); v (P,), or (P, K) for K vectors. The
    forward and backward pass run once, when the operator is built; every product reuses
    them. The operator owns copies of theta, x and y, so that later changes of them do
    not matter. A complex v with a real theta is multiplied part by part:
    A (a + ib) = Aa + iAb.
    Raises ArgumentError for arguments of another shape or kind.
    """

    def __init__(self, net: Any, product: Any, theta: Any, x: Any, y: Any) -> None:
        for name, a in (("theta", theta), ("x", x), ("y", y)):
            expect_array(name, a, net.kernels)
        P = net.num_params
        expect(theta.shape == (P,), "theta", f"shape ({P},)", lambda: f"{theta.shape}")
        self.primal = net.primal(theta[None].copy(), x.copy(), y.copy())
        self.product = product
        super().__init__(dtype=theta.dtype, shape=(P, P))

    def dot(self, v: Any) -> Any:
        """A v, or the product with an operator or a scalar: H @ v, H @ G, 2 * H."""
        if not np.isscalar(v) and not isinstance(v, LinearOperator):
            self.check(v)
        return super().dot(v)

    def matvec(self, v: Any) -> Any:
        """A v for one vector (P,) or (P, 1)."""
        self.check(v)
        return super().matvec(v)

    def matmat(self, V: Any) -> Any:
        """A V for a matrix (P, K)."""
        self.check(V)
        return super().matmat(V)

    def check(self, v: Any) -> None:
        """Raise ArgumentError unless v is an array (P,) or (P, K) of numbers."""
        P = self.shape[0]
        shape = getattr(v, "shape", None) or np.shape(v)
        ok = len(shape) in (1, 2) and shape[0] == P and not isinstance(v, np.ma.MaskedArray)
        expect(ok, "v", f"an array of shape ({P},) or ({P}, K)", lambda: described(v))

    def _matvec(self, v: Any) -> Any:
        return self.product(self.primal, v.reshape(1, -1)).mean(axis=0)

    def _rmatvec(self, v: Any) -> Any:  # A' = A, so A^H v = conj(A conj(v))
        return self._matvec(v.conj()).conj()

    def _transpose(self) -> "CurvatureOperator":
        return self

    def _adjoint(self) -> Any:
        return super()._adjoint() if self.dtype.kind == "c" else self
