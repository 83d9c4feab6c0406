"""Mistakes in the update rule or the proximal term that the method itself has."""

import numpy as np

from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.doctor.wrong_rules import DetachedState
from refmaml.update_rules import UpdateRule

STATE = fix(
    "carry the adjoint of the rule's state from step to step, beside that of phi",
    torch="no .detach(), .data or no_grad() on the momentum buffer or the moments; "
    "torch.optim keeps no graph",
    jax="no lax.stop_gradient on the optimiser's state",
)


def declared_rule(method):
    """Another rule than the method's, its state detached, no proximal term."""
    found, name = [], type(method.rule).__name__
    if not method.rule.plain:
        plain = f"the inner loop is plain gradient descent, without the method's {name}"
        found.append(Mistake("rule", plain, {"rule": UpdateRule()}, fix("use problem.method.rule")))
    if method.rule.init(np.zeros((1, 1))):
        detached = f"the state of {name} is detached: no derivative passes from step to step"
        changes = {"rule": DetachedState(method.rule)}
        found.append(Mistake("rule", detached, changes, STATE))
    if method.anchor:
        term = fix("add anchor (phi - theta) to the inner gradient")
        found.append(Mistake("anchor", "the term with anchor is missing", {"anchor": 0.0}, term))
    return found
