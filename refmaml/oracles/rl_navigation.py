"""Smooth navigation: the derivatives of the return through the dynamics.

    a_t = mu(s_t) + e^l eps_t          mu(s) = W2 tanh(W1 s + b1) + b2
    s_{t+1} = s_t + 0.1 tanh(a_t)      r_t = -sqrt(|s_{t+1} - g|^2 + 1e-4)
    J(p) = E[sum_t gamma^t r_t],       p = (W1, b1, W2, b2, l)

For fixed noise eps a trajectory is a smooth function of p. So J's gradient is the mean
over eps of the derivative through the dynamics, and its Hessian that of the second
derivative. No log-probability appears: the estimators of refmaml.rl share nothing with
this. `gradient` goes back through the steps:

    da = ds_{t+1} 0.1 (1 - tanh^2 a)    dl += da e^l eps
    dh = W2' da,  dz = dh (1 - h^2)     ds_t = ds_{t+1} + W1' dz + gamma^{t-1} r'(s_t)

It is analytic in p, so that the complex step has the Hessian times a vector exactly.
"""

from typing import NamedTuple

import numpy as np

from refmaml.oracles import complex_step
from refmaml.rl.trajectories import Trajectories

STEP, SMOOTH = 0.1, 1e-4


class Field(NamedTuple):
    """The goal (2,), the discount, and the hidden units of mu."""

    goal: tuple = (0.3, 0.4)
    gamma: float = 0.99
    hidden: int = 16

    def parts(self, p):
        """(W1 (h, 2), b1 (h,), W2 (2, h), b2 (2,), l (2,)) of p (P,), as views."""
        h = self.hidden
        sizes = np.cumsum([2 * h, h, 2 * h, 2])
        W1, b1, W2, b2, l = np.split(p, sizes)
        return W1.reshape(h, 2), b1, W2.reshape(2, h), b2, l

    @property
    def size(self):
        """P."""
        return 5 * self.hidden + 4

    def start(self, seed=0):
        """Parameters N(0, 0.4^2), and sigma = 0.6."""
        p = 0.4 * np.random.default_rng(seed).standard_normal(self.size)
        p[-2:] = np.log(0.6)
        return p


class Walk(NamedTuple):
    """s (H + 1, N, 2), h (H, N, hidden), a (H, N, 2), r (H, N)."""

    s: list
    h: list
    a: list
    r: list


def walk(field, p, noise):
    """The trajectories of noise (N, H, 2)."""
    W1, b1, W2, b2, l = field.parts(p)
    s = np.zeros((len(noise), 2), p.dtype)
    found = Walk([s], [], [], [])
    for t in range(noise.shape[1]):
        h = np.tanh(s @ W1.T + b1)
        a = h @ W2.T + b2 + np.exp(l) * noise[:, t]
        s = s + STEP * np.tanh(a)
        found.s.append(s)
        found.h.append(h)
        found.a.append(a)
        found.r.append(-distance(field, s))
    return found


def distance(field, s):
    """sqrt(|s - g|^2 + 1e-4), (N,)."""
    d = s - np.array(field.goal)
    return np.sqrt((d * d).sum(axis=1) + SMOOTH)


def value(field, p, noise, weight):
    """sum_n weight_n sum_t gamma^t r_t."""
    r = np.stack(walk(field, p, noise).r)
    return weight @ (field.gamma ** np.arange(len(r)) @ r)


def gradient(field, p, noise, weight):
    """The gradient of `value` in p, (P,), back through the dynamics."""
    W1, _, W2, _, l = field.parts(p)
    path = walk(field, p, noise)
    grad = np.zeros(field.size, p.dtype)
    dW1, db1, dW2, db2, dl = field.parts(grad)
    ds = np.zeros_like(path.s[0])
    for t in range(noise.shape[1] - 1, -1, -1):
        after = path.s[t + 1]
        pull = (after - np.array(field.goal)) / distance(field, after)[:, None]
        ds = ds - field.gamma**t * weight[:, None] * pull
        da = ds * STEP * (1 - np.tanh(path.a[t]) ** 2)
        dz = (da @ W2) * (1 - path.h[t] ** 2)
        dl += (da * noise[:, t]).sum(axis=0) * np.exp(l)
        dW2 += da.T @ path.h[t]
        db2 += da.sum(axis=0)
        dW1 += dz.T @ path.s[t]
        db1 += dz.sum(axis=0)
        ds = ds + dz @ W1
    return grad


def hessian_product(field, p, v, noise, weight):
    """The Hessian of `value` times v, by the complex step on `gradient`."""
    return complex_step.directional(lambda q: gradient(field, q, noise, weight), p, v)


def trajectories(field, p, noise):
    """The same trajectories as data of one task; rewards are gamma^t r_t."""
    path = walk(field, p, noise)
    states, actions = (np.stack(x, axis=1)[None] for x in (path.s[:-1], path.a))
    rewards = np.stack(path.r, axis=1) * field.gamma ** np.arange(noise.shape[1])
    return Trajectories(states, actions, rewards[None])


def plane(step=0.125, end=8.5):
    """(noise (n, 1, 2), weight (n,)): the trapezoidal rule for one step's noise.

    The integrands are analytic around the real line, so the rule converges as fast as
    for a normal density; the ends leave 1e-16 out.
    """
    x = np.arange(-end, end + step / 2, step)
    w = np.exp(-(x**2) / 2)
    w /= w.sum()
    noise = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 1, 2)
    return noise, np.outer(w, w).ravel()
