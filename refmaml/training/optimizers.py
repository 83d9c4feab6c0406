"""Outer optimisers over the flat meta vector, with explicit state.

    state        = optimizer.init(meta)                        {name: array like meta}
    meta, state  = optimizer.update(meta, grad, state, t, lr)  update t = 1, 2, ...

`update` is step(meta, grad, state, factors(t, lr)). Only the factors change with t, so
that `step` can be part of a CUDA graph. Factors are numbers, or arrays (1,) of the same
library as the vectors, whose module is xp. All functions return new arrays: an
interrupted update has changed nothing.
"""

from dataclasses import dataclass
from math import cos, pi

import numpy as np

from refmaml.errors import expect


@dataclass(frozen=True)
class SGD:
    """theta_t = theta_{t-1} - lr g_t.

    On Reptile's "gradient" lr is the paper's step size epsilon.
    """

    def init(self, meta):
        """{}: SGD has no state."""
        return {}

    def factors(self, t, lr):
        """(lr,)."""
        return (lr,)

    def step(self, meta, grad, state, factors, xp=np):
        (lr,) = factors
        return meta - lr * grad, state

    def update(self, meta, grad, state, t, lr):
        return self.step(meta, grad, state, self.factors(t, lr))


@dataclass(frozen=True)
class Adam:
    """m_t = b1 m_{t-1} + (1 - b1) g_t,  v_t = b2 v_{t-1} + (1 - b2) g_t^2,
    theta_t = theta_{t-1} - lr (m_t / (1 - b1^t)) / (sqrt(v_t / (1 - b2^t)) + eps).

    Source: Kingma, Ba 2015, Algorithm 1, with its defaults.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        for name in ("beta1", "beta2"):
            expect(
                0 <= getattr(self, name) < 1, name, "a number in [0, 1)", repr(getattr(self, name))
            )
        expect(self.eps > 0, "eps", "a number > 0", repr(self.eps))

    def init(self, meta):
        """m_0 = v_0 = 0."""
        return {"m": zeros_like(meta), "v": zeros_like(meta)}

    def factors(self, t, lr):
        """(lr, 1 - b1^t, 1 - b2^t)."""
        return lr, 1 - self.beta1**t, 1 - self.beta2**t

    def step(self, meta, grad, state, factors, xp=np):
        lr, of_m, of_v = factors
        m = self.beta1 * state["m"] + (1 - self.beta1) * grad
        v = self.beta2 * state["v"] + (1 - self.beta2) * grad * grad
        unbiased_m, unbiased_v = m / of_m, v / of_v
        return meta - lr * unbiased_m / (xp.sqrt(unbiased_v) + self.eps), {"m": m, "v": v}

    def update(self, meta, grad, state, t, lr):
        return self.step(meta, grad, state, self.factors(t, lr))


def zeros_like(array):
    """Zeros of the same shape, dtype and library."""
    out = array.copy()
    out.fill(0)
    return out


OPTIMIZERS = {"adam": Adam, "sgd": SGD}

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
