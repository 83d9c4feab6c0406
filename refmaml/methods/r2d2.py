"""R2-D2: ridge regression as the head of a meta-learned body."""

from dataclasses import dataclass, field
from typing import Any

from refmaml.methods.ridge_head import RidgeHead
from refmaml.methods.solved_head import SolvedHead


@dataclass(frozen=True)
class R2D2(SolvedHead):
    """SolvedHead(RidgeHead(...)): outputs alpha q W' + beta of features q, with

        W = argmin 1/2 |Y - X W'|^2 + lambda/2 |W|^2

    of a support set's features X and targets Y. Meta-parameters (P + 3,): [theta, log
    lambda, alpha, beta].
    strength (lambda), scale (alpha), shift (beta): where they start; and intercept:
    see ScaledHead
    Raises ArgumentError, NonFiniteError.
    Source: Bertinetto, Henriques, Torr, Vedaldi 2019, eq. 4 to 6. Their code
    (bertinetto/r2d2, conf/fewshots.yaml) has the intercept, keeps lambda at 50, and
    divides X and Y of the support set by sqrt(N), which is this head with strength =
    50 N. Here nothing is divided, and lambda is learned by its logarithm.
    """

    head: Any = field(init=False, repr=False, default=None)
    strength: float = 1.0
    scale: float = 1.0
    shift: float = 0.0
    intercept: bool = False

    def __post_init__(self) -> None:
        head = RidgeHead(self.strength, self.scale, self.shift, self.intercept)
        object.__setattr__(self, "head", head)
