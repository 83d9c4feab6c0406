"""The outer step of TRPO: a natural gradient, then a line search in a trust region.

    F x = -g                        by conjugate gradients; F is only a product
    step = x sqrt(2 delta / x'F x)  its KL divergence is delta to second order
    theta + c step,  c = 1, 0.8, 0.8^2, ...  until the loss is lower and KL <= delta

Source: Schulman et al. 2015, appendix C; the numbers are those of cbfinn/maml_rl.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.arguments import check_integer, check_positive_number, set_fields
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.conjugate_gradients import conjugate_gradients

Product = Callable[[Array], Array]  # v (P,) -> F v (P,)


class Measured(NamedTuple):
    """The loss and the KL divergence at a point: each a mean over tasks."""

    loss: float
    kl: float


class Found(NamedTuple):
    """The next theta (P,), its loss and divergence, and how many points were tried.

    tries is 0 where no point was accepted; theta is the old one then.
    """

    theta: Array
    at: Measured
    tries: int


@dataclass(frozen=True)
class TrustRegion:
    """limit is delta; damping is added to the diagonal of F.

    cg_steps  iterations of conjugate gradients; shrink  c's factor from try to try
    Raises ArgumentError unless these are numbers > 0, shrink < 1 and counts >= 1.
    """

    limit: float = 0.01
    cg_steps: int = 10
    damping: float = 1e-5
    shrink: float = 0.8
    tries: int = 15

    def __post_init__(self) -> None:
        names = ("limit", "damping", "shrink")
        set_fields(self, **{n: check_positive_number(n, getattr(self, n)) for n in names})
        counts = ("cg_steps", "tries")
        set_fields(self, **{n: check_integer(n, getattr(self, n)) for n in counts})
        expect(self.shrink < 1, "shrink", "a number < 1", f"{self.shrink}")

    def step(self, gradient: Array, product: Product) -> Array:
        """The step (P,) for the gradient of the loss (P,); 0 where the gradient is 0.

        x'F x is x'(-g): the residual of conjugate gradients is orthogonal to x.
        """

        def damped(v: Array) -> Array:
            return product(v[0])[None] + self.damping * v

        x = conjugate_gradients(damped, -gradient[None], self.cg_steps).x[0]
        curvature = float(-(x @ gradient))
        size = np.sqrt(2 * self.limit / curvature) if curvature > 0 else 0.0
        return x * x.dtype.type(size)  # a float64 number would change the precision

    def search(
        self, theta: Array, step: Array, before: float, measure: Callable[[Array], Measured]
    ) -> Found:
        """The first of theta + c step that lowers the loss and stays in the region.

        before  the loss at theta
        """
        for i in range(self.tries):
            point = theta + step * step.dtype.type(self.shrink**i)
            at = measure(point)
            if at.loss < before and at.kl <= self.limit:
                return Found(point, at, i + 1)
        return Found(theta, Measured(before, 0.0), 0)
