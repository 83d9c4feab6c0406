"""LR-D2: logistic regression as the head of a meta-learned body."""

from dataclasses import dataclass, field
from typing import Any

from refmaml.arguments import check_choice
from refmaml.methods.logistic_head import LogisticHead
from refmaml.methods.logistic_iterations import LogisticIterations
from refmaml.methods.solved_head import SolvedHead

HEADS = {"optimum": LogisticHead, "iterations": LogisticIterations}


@dataclass(frozen=True)
class LRD2(SolvedHead):
    """SolvedHead(LogisticHead(...)): one logistic regression for each class.

    Meta-parameters (P + 3,): [theta, log lambda, alpha, beta].
    strength (lambda), scale (alpha), shift (beta): where they start; and intercept:
    see ScaledHead
    newton_steps   steps of the solver
    differentiate  "optimum": by the implicit function theorem, which holds at the
                   optimum; "iterations": through full Newton steps, as the authors'
                   code does
    report["inner_residual"] says how far from the optimum a task's solution is.
    Raises ArgumentError, NonFiniteError.
    Source: Bertinetto, Henriques, Torr, Vedaldi 2019, eq. 7 to 9.
    """

    head: Any = field(init=False, repr=False, default=None)
    strength: float = 1.0
    scale: float = 1.0
    shift: float = 0.0
    intercept: bool = False
    newton_steps: int = 16
    differentiate: str = "optimum"

    def __post_init__(self) -> None:
        head = HEADS[check_choice("differentiate", self.differentiate, tuple(HEADS))]
        scaled = self.strength, self.scale, self.shift, self.intercept
        object.__setattr__(self, "head", head(*scaled, self.newton_steps))
