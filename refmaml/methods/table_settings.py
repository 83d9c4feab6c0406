"""Settings and options that entries of the table of methods share; see table.py."""

from refmaml.methods.table_entry import Option
from refmaml.update_rules import SGD

FROZEN = {"frozen": ("BatchNorm2d",)}
WEIGHTS = {"inner_steps": 5, "loss_weights": (0.1, 0.0, 0.3, 0.2, 0.4)}
ADAM = {"optimizer": "adam", "inner_lr": 0.01, "inner_steps": 5, "inner_batch": 4}
# Both solves run down to rounding: the oracles know the exact solution only.
TO_ROUNDING = {"regularization": 2.0, "inner_tol": 0.0, "cg_steps": 100, "cg_tol": 1e-15}
CONVERGED = TO_ROUNDING | {"inner_steps": 40, "inner_lr": 0.2, "solver": "newton_cg"}
MOMENTUM = {"inner_lr": 0.1, "rule": SGD(momentum=0.5, dampening=0.2, weight_decay=0.1)}
SPREAD = {"spread": 0.1}  # matrices that are not symmetric, as the identity is
# iMAML's inner problem solved to rounding by steps with momentum.
SOLVED_BY_MOMENTUM = TO_ROUNDING | {"inner_steps": 120, "inner_lr": 0.2, "rule": SGD(momentum=0.5)}
SOLVED_WITH_CONTROL = TO_ROUNDING | {"inner_steps": 120, "solver": "controlled_descent"}
CONTEXT = Option(None, "integer >= 1", "CAVIA, CNP: numbers in a task's context")
ALPHA = {"inner_lr": 0.25}
THREE_STEPS = {"inner_lr": 0.25, "inner_steps": 3}
# Heads solved in closed form: where lambda, alpha and beta start.
HEAD_OPTIONS = {
    "head_strength": Option("strength", "number > 0", "solved heads: lambda at the start"),
    "head_scale": Option("scale", "number > 0", "solved heads: the outputs' scale at the start"),
    "head_intercept": Option("intercept", "switch", "solved heads: with an intercept"),
}
RIDGE = {"strength": 0.75, "scale": 1.75, "shift": 0.25}
# LLAMA: a precision at which the Hessians of the ladder's nets are positive definite.
HESSIAN = {"inner_steps": 3, "weight": 0.5, "precision": 3.0, "curvature": "hessian"}
KRONECKER = {"inner_steps": 3, "weight": 0.5, "precision": 0.25, "curvature": "kronecker"}
