"""What heads with a ridge share: lambda = e^ell, an intercept, alpha z + beta."""

from dataclasses import dataclass
from math import log
from typing import Any

from refmaml.arguments import check_bool, check_number, check_positive_number, set_fields
from refmaml.layers.layer import Array


@dataclass(frozen=True)
class ScaledHead:
    """Outputs alpha z + beta of a linear model z = q W' of features q.

    W (T, C, F) solves a problem of the support set. The linear layer then has the
    weight alpha W and the bias beta. With an intercept every example has one more
    feature, which is 1: W (T, C, F + 1) ends in the intercepts c (T, C), and the bias
    is alpha c + beta.

    strength   lambda > 0 at the start; the meta-parameter is its logarithm
    scale      alpha at the start
    shift      beta at the start, the same for all outputs. A softmax does not see it:
               under cross-entropy its derivative is 0
    intercept  whether W has intercepts; they are penalised like all of W
    Raises ArgumentError for other fields.
    """

    strength: float = 1.0
    scale: float = 1.0
    shift: float = 0.0
    intercept: bool = False
    of_labels = False  # whether its targets have to be labels

    def __post_init__(self) -> None:
        set_fields(
            self,
            strength=check_positive_number("strength", self.strength),
            scale=check_number("scale", self.scale),
            shift=check_number("shift", self.shift),
            intercept=check_bool("intercept", self.intercept),
        )

    def start(self) -> tuple[float, float, float]:
        """The meta-parameters eta (3,) at the start: ell = log lambda, alpha, beta."""
        return log(self.strength), self.scale, self.shift

    def report(self, k: Any, saved: Any) -> dict[str, Array]:
        """What the head says of its solve, (T,) each: nothing where it is exact."""
        return {}

    # ---- from features and W to the linear layer, and back for adjoints --------------

    def extended(self, k: Any, X: Array, constant: float) -> Array:
        """X with the intercept's feature: 1, or 0 for a tangent."""
        if not self.intercept:
            return X
        column = k.xp.full((*X.shape[:2], 1), constant, X.dtype)
        return k.concatenate([X, column], axis=2)

    def without(self, k: Any, dX: Array) -> Array:
        """The adjoint of `extended`: dX without the intercept's feature."""
        return k.xp.ascontiguousarray(dX[..., :-1]) if self.intercept else dX

    def layer(self, k: Any, V: Array, beta: Array) -> tuple[Array, Array]:
        """weight and bias (T, C) of V = alpha W, and beta; linear in both."""
        if not self.intercept:
            return V, beta + k.xp.zeros(V.shape[:2], V.dtype)
        return V[..., :-1], beta + V[..., -1]

    def of_layer(self, k: Any, dw: Array, db: Array) -> Array:
        """dV, the adjoint of `layer`; that of beta is the sum of db."""
        return k.concatenate([dw, db[..., None]], axis=2) if self.intercept else dw
