"""A net in the objects of other libraries: SciPy's operators, functions of frameworks.

Each library is imported when a method of it is called.
"""


class Interoperability:
    """The methods of Sequential that return an object of SciPy, PyTorch or JAX."""

    # ---- curvature as operators ------------------------------------------------------

    def hessian(self, theta, x, y):
        """The Hessian at theta (P,) of the mean loss over the tasks of x, y.

        A scipy LinearOperator: H @ v, scipy.sparse.linalg.eigsh(H), without ever
        forming H.

        >>> import numpy as np, refmaml as rm
        >>> net = rm.Sequential([rm.Linear(1, 1, bias=False)], rm.MSE())
        >>> x, y = np.array([[[1.0], [3.0]]]), np.zeros((1, 2, 1))
        >>> H = net.hessian(np.zeros(1), x, y)
        >>> H @ np.array([1.0])  # d^2/dw^2 of ((w - 0)^2 + (3 w - 0)^2) / 2
        array([10.])
        """
        from refmaml.operators import CurvatureOperator  # scipy is imported where it is used

        return CurvatureOperator(self, self.hvp, theta, x, y)

    def gauss_newton(self, theta, x, y):
        """The Gauss-Newton matrix at theta (P,) of the mean loss: a LinearOperator."""
        from refmaml.operators import CurvatureOperator

        return CurvatureOperator(self, self.gauss_newton_product, theta, x, y)

    # ---- the same net in a framework -------------------------------------------------

    def to_torch(self):
        """The net as a function f(params, x) -> outputs of tensors, in PyTorch.

        params is a dict of named tensors, as in torch.func; f.loss(params, x, y) is the
        net's loss. Inputs x (N, ...) are those of one task; torch.func.vmap takes tasks
        together. Raises ArgumentError without PyTorch.

            params = {name: torch.tensor(a) for name, a in net.named(theta).items()}
            grads = torch.func.grad(net.to_torch().loss)(params, x, y)
        """
        from refmaml.autodiff.net_function import NetFunction  # imports torch when made

        return NetFunction(self, "torch")

    def to_jax(self):
        """The net as a function f(params, x) -> outputs of arrays, in JAX.

        As `to_torch`, for jax.grad, jax.vmap and jax.jit. JAX computes in float32
        unless jax_enable_x64 is set.
        """
        from refmaml.autodiff.net_function import NetFunction

        return NetFunction(self, "jax")
