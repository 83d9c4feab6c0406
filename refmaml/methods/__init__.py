"""Gradient-based meta-learning, one method in each file.

The difference of two files is the difference of two methods. Every method is a frozen
dataclass. Its fields have the names of its paper's symbols, spelled out. All methods
have the same functions:

    meta = method.init(net, theta)
    phi  = method.adapt(net, meta, x, y)
    out  = method.meta_gradient(net, meta, batch)

init           the meta-parameters (M,): theta, then whatever else the method learns,
               such as step sizes
adapt          the adapted parameters (T, P), one row for each task
meta_gradient  a MetaGradient: loss, accuracy, and grad (M,), the mean over tasks of
               dM_t/dmeta
"""

from refmaml.methods.anchor_map import anchor_map
from refmaml.methods.conjugate_gradients import conjugate_gradients
from refmaml.methods.logistic_head import LogisticHead
from refmaml.methods.logistic_iterations import LogisticIterations
from refmaml.methods.meta_gradient import MetaGradient
from refmaml.methods.posterior import (
    adapted_draws,
    linearized_outputs,
    task_posterior,
    theta_posterior,
)
from refmaml.methods.ridge_head import RidgeHead
from refmaml.methods.solved_head import SolvedHead
from refmaml.methods.svm_head import SVMHead
from refmaml.methods.table import *  # noqa: F403 (the classes; table.py imports each of them)
from refmaml.methods.table import TABLE

# The public names: the class of each entry of the table, and some more.
__all__ = [entry.cls.__name__ for entry in TABLE]
__all__ += ["MetaGradient", "anchor_map", "conjugate_gradients"]
__all__ += ["adapted_draws", "linearized_outputs", "task_posterior", "theta_posterior"]
__all__ += ["SolvedHead", "RidgeHead", "LogisticHead", "LogisticIterations", "SVMHead"]
