"""Training: outer optimisers, the loop, held-out evaluation, checkpoints, learning
curves.
"""

from refmaml.training.evaluation import Evaluation, evaluate, evaluate_each_way
from refmaml.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    SGD,
    Adam,
    Schedule,
    optimizer_state,
    update,
)
from refmaml.training.rows import Row, Rows
from refmaml.training.trainer import Progress, Recipe, advance, train

__all__ = [
    "SGD",
    "Adam",
    "Schedule",
    "OPTIMIZERS",
    "SCHEDULES",
    "Recipe",
    "Progress",
    "Row",
    "Rows",
    "advance",
    "train",
    "Evaluation",
    "evaluate",
    "evaluate_each_way",
    "optimizer_state",
    "update",
]
