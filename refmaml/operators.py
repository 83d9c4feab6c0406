"""Curvature matrices as scipy LinearOperators: H @ v, scipy.sparse.linalg.eigsh(H), cg(H, b), without ever forming H."""

from scipy.sparse.linalg import LinearOperator

from refmaml.errors import expect


class CurvatureOperator(LinearOperator):
    """v -> mean over tasks of product(primal, v), for a symmetric `product` such as a net's hvp.

    theta (P,), x (T, N, ...), y (T, N, ...). The forward and backward pass run once, here; every product reuses them.
    """

    def __init__(self, net, product, theta, x, y):
        expect(
            theta.shape == (net.num_params,),
            "theta",
            f"shape ({net.num_params},)",
            f"{theta.shape}",
        )
        self.primal, self.product = net.primal(theta[None], x, y), product
        super().__init__(dtype=theta.dtype, shape=(net.num_params, net.num_params))

    def _matvec(self, v):
        return self.product(self.primal, v.reshape(1, -1).astype(self.dtype, copy=False)).mean(
            axis=0
        )

    def _adjoint(self):
        return self
