"""Inner optimisers: the step that each makes of a gradient, and its adjoint.

    step, state, saved = rule.forward(g, state, k)
    dg, dstate         = rule.backward(dstep, dstate, saved)

g (T, P) is the gradient, k = 0, 1, ... the number of the step, state None at first.
"""

from dataclasses import dataclass

import numpy as np


def norms(g):
    """|g| of each task, (T, 1)."""
    return np.sqrt((g * g).sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Descent:
    """Plain gradient descent: the step is the gradient."""

    def forward(self, g, state, k):
        return g, None, None

    def backward(self, dstep, dstate, saved):
        return dstep, None


@dataclass(frozen=True)
class NormClip:
    """g min(1, c / |g|).

    Its Jacobian where it clips is (c / |g|) (I - u u'), u = g / |g|; with constant=True
    it is c / |g| alone, as if the factor did not depend on g."""

    limit: float
    constant: bool = False

    def forward(self, g, state, k):
        size = norms(g)
        factor = np.minimum(1, self.limit / size)
        return factor * g, None, (g / size, factor)

    def backward(self, dstep, dstate, saved):
        u, factor = saved
        radial = 0
        if not self.constant:
            radial = np.where(factor < 1, (u * dstep).sum(axis=1, keepdims=True), 0) * u
        return factor * (dstep - radial), None


@dataclass(frozen=True)
class EntryClip:
    """Every entry of g clipped to [-c, c]."""

    limit: float

    def forward(self, g, state, k):
        return np.clip(g, -self.limit, self.limit), None, np.abs(g) <= self.limit

    def backward(self, dstep, dstate, saved):
        return dstep * saved, None


@dataclass(frozen=True)
class Momentum:
    """m <- beta m + g; the step is m. Polyak 1964, as in deep-learning libraries."""

    beta: float

    def forward(self, g, state, k):
        m = g if state is None else self.beta * state + g
        return m, m, None

    def backward(self, dstep, dstate, saved):
        dm = dstep if dstate is None else dstep + dstate
        return dm, self.beta * dm


@dataclass(frozen=True)
class Adam:
    """m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps).

    Source: Kingma & Ba 2015, Algorithm 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def forward(self, g, state, k):
        m, v, t = (0, 0, k + 1) if state is None else (*state[:2], state[2] + 1)
        m, v = self.beta1 * m + (1 - self.beta1) * g, self.beta2 * v + (1 - self.beta2) * g * g
        c1, c2 = 1 - self.beta1**t, 1 - self.beta2**t
        mh, root = m / c1, np.sqrt(v / c2)
        return mh / (root + self.eps), (m, v, t), (g, mh, root, c1, c2)

    def backward(self, dstep, dstate, saved):
        g, mh, root, c1, c2 = saved
        dm, dv = dstate if dstate is not None else (0, 0)
        below = root + self.eps
        dm = dm + dstep / below / c1
        dv = dv - np.divide(
            dstep * mh, 2 * root * below * below * c2, out=np.zeros_like(g), where=root > 0
        )
        return (1 - self.beta1) * dm + 2 * (1 - self.beta2) * g * dv, (
            self.beta1 * dm,
            self.beta2 * dv,
        )
