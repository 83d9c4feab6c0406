"""Outer optimisers: update rules on the flat meta vector; learning-rate schedules.

    state        = optimizer_state(optimizer, meta)          {name: array like meta}
    meta, state  = update(net, optimizer, meta, grad, state, t, lr)    t = 1, 2, ...

An optimiser is a rule of refmaml.update_rules: meta <- meta - lr d, with d the rule's
direction. `update` is step(..., factors(optimizer, t, lr)). Only the factors change
with t, so that `step` can be part of a CUDA graph. Factors are numbers, or arrays (1,)
of the same library as the vectors. All functions return new arrays: an interrupted
update has changed nothing.
"""

from dataclasses import dataclass
from functools import singledispatch
from math import cos, pi

from refmaml.errors import expect
from refmaml.update_rules import SGD, Adam, Clip
from refmaml.update_rules.from_text import RULES

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "MetaVector",
    "Schedule",
    "factors",
    "optimizer_state",
    "step",
    "update",
]

OPTIMIZERS = RULES  # by name, in lower case


class MetaVector:
    """What a rule reads of a net, for the whole meta vector (M,) in one row.

    kernels  the net's
    blocks   the net's named arrays; all learned step sizes together are one more
    """

    def __init__(self, net, size):
        self.kernels = net.kernels
        rest = [slice(net.num_params, size)] if size > net.num_params else []
        self.blocks = [*net.blocks, *rest]

    def require(self, condition, refuse):
        """No condition: rules have conditions on their derivatives only."""


def optimizer_state(optimizer, meta):
    """The state before the first update: {name: array (M,)}."""
    zeros = meta.copy()
    zeros.fill(0)  # 0 * meta would keep the signs of meta in its zeros
    return optimizer.init(zeros)


def factors(optimizer, t, lr):
    """The numbers that change with t: (lr, *the rule's own)."""
    return lr, *optimizer.factors(t)


def step(net, optimizer, meta, grad, state, factors):
    """(meta, state) after an update; arrays (M,)."""
    lr, *own = factors
    rows = {name: a[None] for name, a in state.items()}
    vector = MetaVector(net, len(meta))
    after, new = moved(optimizer, vector, meta[None], grad[None], rows, tuple(own), lr)
    return after[0], {name: new[name][0] for name in state}


@singledispatch
def moved(rule, net, phi, g, state, factors, lr):
    """(phi - lr d, the state after); rows (1, M)."""
    d, state = rule.direction(net, phi, g, state, factors)
    return phi - lr * d, state


@moved.register
def moved_by_adam(rule: Adam, net, phi, g, state, factors, lr):
    """phi - lr mh / D, evaluated from the left: the bits of earlier versions."""
    a = rule.moments(net, phi, g, state, factors)
    after = phi - lr * a.mh / a.D
    if rule.decoupled:
        after = after - lr * rule.weight_decay * phi
    return after, {"m": a.m, "v": a.v}


@moved.register
def moved_by_clip(rule: Clip, net, phi, g, state, factors, lr):
    """The rule inside, on the clipped gradient."""
    return moved(rule.rule, net, phi, rule.clipped(net, g), state, factors, lr)


def update(net, optimizer, meta, grad, state, t, lr):
    """(meta, state) after update t = 1, 2, ... with learning rate lr."""
    return step(net, optimizer, meta, grad, state, factors(optimizer, t, lr))


# The factor in front of lr, a function of the fraction of training done, in [0, 1).
SCHEDULES = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,  # Reptile's
    "cosine": lambda done: (1 + cos(pi * done)) / 2,  # MAML++'s
}


@dataclass(frozen=True)
class Schedule:
    """lr(step) = lr * shape(step / steps) for step = 0 .. steps - 1.

    shape  "constant", "linear" (to zero) or "cosine" (to zero)
    steps  the number of meta-steps; None where shape is "constant"
    """

    lr: float
    shape: str = "constant"
    steps: int | None = None

    def __post_init__(self):
        expect(self.lr > 0, "lr", "a number > 0", repr(self.lr))
        expect(
            self.shape in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}", repr(self.shape)
        )
        expect(
            self.shape == "constant" or self.steps is not None,
            "steps",
            f"a number of steps for the {self.shape} schedule to count down",
            repr(self.steps),
        )

    def __call__(self, step):
        """The learning rate of meta-step `step`, counted from 0."""
        return (
            self.lr
            if self.shape == "constant"
            else self.lr * SCHEDULES[self.shape](step / self.steps)
        )
