"""Linear-quadratic navigation on a line: exact J, gradient and Hessian by moments.

    s_{t+1} = s_t + a_t,  a_t ~ N(b + K s_t, sigma^2),  r_t = -1/2 (s_{t+1} - g)^2
    p = (b, K, l),  l = log sigma,  J(p) = E[r_0 + ... + r_{T-1}]

The state stays normal. Its mean and variance follow

    m+ = (1 + K) m + b            v+ = (1 + K)^2 v + sigma^2
    J  = -1/2 sum_t [(m_t - g)^2 + v_t],  t = 1 ... T

and their first and second derivatives follow from these lines by the product rule.

An estimator's Hessian of J is the mean of a sum over the steps of a trajectory. With
h_t = d^2 log pi_t, c_t = grad log pi_t and the rewards to go R_t = r_t + ... + r_{T-1}:

    naive   h_t A_t                         A_t = R_t, or R_t - V_t(s_t) with a baseline
    LVC     (h_t + c_t c_t') A_t
    DiCE    r_t (h_0 + ... + h_t + C_t C_t'),  C_t = c_0 + ... + c_t

These are polynomials in the T normal numbers of a trajectory, so that a Gauss-Hermite
rule has their means exactly.
"""

from typing import NamedTuple

import numpy as np

ESTIMATORS = ("naive", "naive + baseline", "LVC", "LVC + baseline", "DiCE")
NODES = 10  # exact for degree 19; the largest here is 2 T + 6


class Line(NamedTuple):
    """The goal g, the start s_0, and T, the steps of a trajectory."""

    horizon: int
    goal: float = 1.0
    start: float = 0.3


class Jet(NamedTuple):
    """A number with its derivatives by p: value, first (3,), second (3, 3)."""

    value: float
    first: np.ndarray
    second: np.ndarray

    def __add__(self, other):
        return Jet(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, other):
        """The product rule: (x y)'' = x'' y + x' y' + y' x' + x y''."""
        cross = np.outer(self.first, other.first)
        return Jet(
            self.value * other.value,
            self.first * other.value + self.value * other.first,
            self.second * other.value + cross + cross.T + self.value * other.second,
        )

    def scaled(self, factor):
        """`factor` times this."""
        return Jet(*(factor * a for a in self))


def constant(value, dtype=float):
    """A Jet whose derivatives are 0."""
    return Jet(value, np.zeros(3, dtype), np.zeros((3, 3), dtype))


def parameter(p, i):
    """The Jet of p_i."""
    return Jet(p[i], np.eye(3)[i], np.zeros((3, 3)))


def variance(p):
    """The Jet of sigma^2 = e^{2 l}: each derivative by l is a factor of 2."""
    value, e = np.exp(2 * p[2]), np.eye(3)[2]
    return Jet(value, 2 * value * e, 4 * value * np.outer(e, e))


def objective(line, p, start=None, first=0):
    """The Jet of J(p); of V_t(s) = E[r_t + ... | s_t = s] for t = first, s = start."""
    b, gain, noise = parameter(p, 0), parameter(p, 1) + constant(1.0), variance(p)
    m, v = constant(line.start if start is None else start), constant(0.0)
    total = constant(0.0)
    for _ in range(first, line.horizon):
        m, v = gain.times(m) + b, gain.times(gain).times(v) + noise
        off = m + constant(-line.goal)
        total = total + (off.times(off) + v).scaled(-0.5)
    return total


def value_to_go(line, p, t, s):
    """V_t(s) for states s (B,): `objective` at many states, without derivatives."""
    b, gain, noise = p[0], 1 + p[1], np.exp(2 * p[2])
    m, v, total = s, 0.0, 0.0
    for _ in range(t, line.horizon):
        m, v = gain * m + b, gain * gain * v + noise
        total = total - 0.5 * ((m - line.goal) ** 2 + v)
    return total


class Paths(NamedTuple):
    """Trajectories (B, T) at the nodes of a rule, and the weight (B,) of each.

    score (B, T, 3) is grad log pi_t, curvature (B, T, 3, 3) its derivative
    """

    weight: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    score: np.ndarray
    curvature: np.ndarray


def paths(line, p, nodes=NODES):
    """All trajectories whose normal numbers are nodes of the Gauss-Hermite rule."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.meshgrid(*[np.arange(nodes)] * line.horizon, indexing="ij")
    places = np.stack(grid, axis=-1).reshape(-1, line.horizon)
    weight, noise = np.prod((w / w.sum())[places], axis=1), x[places]
    states, actions, rewards = (np.empty_like(noise) for _ in range(3))
    s = np.full(len(noise), line.start)
    for t in range(line.horizon):
        a = p[0] + p[1] * s + np.exp(p[2]) * noise[:, t]
        states[:, t], actions[:, t] = s, a
        s = s + a
        rewards[:, t] = -0.5 * (s - line.goal) ** 2
    return Paths(weight, states, actions, rewards, *log_derivatives(p, states, noise))


def log_derivatives(p, s, e):
    """grad and Hessian of log pi = -e^2/2 - l, where e = (a - b - K s)/sigma.

    e has the gradient -(1/sigma, s/sigma, e).
    """
    sigma, one = np.exp(p[2]), np.ones_like(s)
    de = np.stack([-one / sigma, -s / sigma, -e], axis=-1)
    score = -e[..., None] * de - np.eye(3)[2]
    curvature = -de[..., :, None] * de[..., None, :]
    # -e d^2 e: the mixed derivatives of e with l are -de, as e is 1/sigma times a sum.
    mixed = np.zeros_like(curvature)
    mixed[..., 2, :2] = mixed[..., :2, 2] = -de[..., :2]
    mixed[..., 2, 2] = e
    return score, curvature - e[..., None, None] * mixed


def hessians(line, p, nodes=NODES):
    """(gradient of J (3,), {estimator: the mean of its Hessian (3, 3)})."""
    at = paths(line, p, nodes)
    to_go = np.cumsum(at.rewards[:, ::-1], axis=1)[:, ::-1]
    values = [value_to_go(line, p, t, at.states[:, t]) for t in range(line.horizon)]
    baselined = to_go - np.stack(values, axis=1)
    squares = at.score[..., :, None] * at.score[..., None, :]
    sums = np.cumsum(at.score, axis=1)
    all_past = np.cumsum(at.curvature, axis=1) + sums[..., :, None] * sums[..., None, :]

    def mean(weights, terms):
        return np.einsum("b,bt,btij->ij", at.weight, weights, terms)

    found = (
        mean(to_go, at.curvature),
        mean(baselined, at.curvature),
        mean(to_go, at.curvature + squares),
        mean(baselined, at.curvature + squares),
        mean(at.rewards, all_past),
    )
    gradient = np.einsum("b,bt,bti->i", at.weight, to_go, at.score)
    return gradient, dict(zip(ESTIMATORS, found, strict=True))


def meta_gradients(line, p, alpha):
    """(J_II' (3,), {estimator: (I + alpha H) grad J(phi)}), also of "first order"."""
    exact = objective(line, p)
    at_phi = objective(line, p + alpha * exact.first).first
    _, found = hessians(line, p)
    found["first order"] = np.zeros((3, 3))
    steps = {name: at_phi + alpha * H @ at_phi for name, H in found.items()}
    return at_phi + alpha * exact.second @ at_phi, steps
