"""A loss of one parameter, from any function with its first two derivatives."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refmaml import kernels as kernel_sets
from refmaml.errors import expect
from refmaml.model import Model


@dataclass(frozen=True)
class ScalarPrimal:
    """Loss (T,), gradient (T, 1) and second derivative (T, 1) at w."""

    loss: np.ndarray
    grad: np.ndarray
    curvature: np.ndarray
    accuracy: None = None


class ScalarFunction(Model):
    """f(w; x) of one number w: a model that methods use like a net.

    f, df, ddf  the function and its first two derivatives in w. Each takes w (T,) and
                the inputs x of the tasks (T, ...), and returns (T,). Functions that are
                the same in every task ignore x.
    The targets y of a batch are not used: they may be zeros of shape (T, 1).
    Raises ArgumentError where f, df or ddf is no function, or returns another shape.

    >>> import numpy as np, refmaml as rm
    >>> net = rm.ScalarFunction(lambda w, x: w**4, lambda w, x: 4 * w**3,
    ...                         lambda w, x: 12 * w**2)
    >>> x = y = np.zeros((1, 1))
    >>> batch = rm.Batch(x, y, x, y)
    >>> out = rm.MAML(0.1).meta_gradient(net, np.array([0.5]), batch)
    >>> out.grad.round(6)           # phi = 0.45, and 4 phi^3 (1 - 0.1 * 12 * 0.5^2)
    array([0.25515])
    """

    num_params = 1

    def __init__(self, f: Callable, df: Callable, ddf: Callable) -> None:
        for name, function in (("f", f), ("df", df), ("ddf", ddf)):
            expect(callable(function), name, "a function of (w, x)", repr(function))
        self.functions = {"f": f, "df": df, "ddf": ddf}
        self.kernels, self.blocks = kernel_sets.reference(), [slice(0, 1)]

    def init(self, seed=0, dtype=np.float64):
        """A standard normal start (1,)."""
        return np.random.default_rng(seed).standard_normal(1).astype(dtype)

    def mask(self, patterns):
        """(1,) of True, for patterns ('*',): the parameter has no name."""
        wanted = "('*',): the parameter of a scalar function has no name"
        expect(tuple(patterns) == ("*",), "patterns", wanted, repr(patterns))
        return np.ones(1, bool)

    def activations(self, shape):
        """0: a function has no layers."""
        return 0

    def value(self, name, w, x):
        """f, df or ddf at w (T or 1, 1), as (T,)."""
        w = np.broadcast_to(w, (len(x), 1))[:, 0]
        value = np.asarray(self.functions[name](w, x))
        expect(value.shape == w.shape, name, f"a result of shape {w.shape}", f"{value.shape}")
        return value

    def primal(self, w, x, y, keep=True):
        """f (T,), f' (T, 1) and f'' (T, 1) at w."""
        loss, grad, curvature = (self.value(name, w, x) for name in self.functions)
        return ScalarPrimal(loss, grad[:, None], curvature[:, None])

    def loss(self, w, x, y):
        """f for each task, (T,)."""
        return self.value("f", w, x)

    def gradient(self, w, x, y):
        """f' for each task, (T, 1)."""
        return self.value("df", w, x)[:, None]

    def hvp(self, primal, v):
        """f'' v for each task; v (T or 1, 1)."""
        return primal.curvature * v
