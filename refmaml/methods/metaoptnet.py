"""MetaOptNet: a multi-class support vector machine as the head of a body."""

from dataclasses import dataclass, field
from typing import Any

from refmaml.methods.solved_head import SolvedHead
from refmaml.methods.svm_head import SVMHead


@dataclass(frozen=True)
class MetaOptNet(SolvedHead):
    """SolvedHead(SVMHead(...)): the SVM of Crammer & Singer on a set's features.

    Meta-parameters (P + 3,): [theta, log lambda, alpha, beta].
    strength (lambda), scale (alpha), shift (beta): where they start; and intercept:
    see ScaledHead
    cost          c, the bound of the dual variables; solver_steps: iterations of the
                  interior-point method; see SVMHead
    report["inner_residual"] says how far from the optimum a task's solution is.
    Raises ArgumentError, NonFiniteError.
    Source: Lee, Maji, Ravichandran, Soatto 2019 (MetaOptNet-SVM). Their code keeps
    lambda at 1 and learns the scale; c = 0.1.
    """

    head: Any = field(init=False, repr=False, default=None)
    strength: float = 1.0
    scale: float = 1.0
    shift: float = 0.0
    intercept: bool = False
    cost: float = 0.1
    solver_steps: int = 20

    def __post_init__(self) -> None:
        scaled = self.strength, self.scale, self.shift, self.intercept
        object.__setattr__(self, "head", SVMHead(*scaled, self.cost, self.solver_steps))
