"""A Gaussian policy: a net for the mean, one log sigma for each action dimension.

    a ~ N(mu(s; w), diag(s^2)),  s = e^l;  l does not depend on the state

Its log-probabilities are outputs like those of a net, with the same four passes. Tasks
travel together: w (T, P), or (1, P) where all tasks share it; states (T, ..., S) and
actions (T, ..., A), with any axes in between, such as trajectories and time steps.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.arguments import check_bool
from refmaml.arrays import expect_array
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.primal import Primal
from refmaml.rl import gaussian_density


@dataclass(frozen=True)
class Distributions:
    """The Gaussians at some states: mu (T, B, A), l (T or 1, A), and the net's pass.

    axes    (T, ...): the axes of the states, before their last one
    w, saved   the net's parameters layer by layer, and what its layers saved
    """

    mu: Array
    l: Array
    axes: tuple
    w: list
    saved: list

    def net_pass(self, dys: list | None = None) -> Primal:
        """The pass for the net's R-passes, which read no loss and no gradient."""
        return Primal(self.w, self.mu, self.mu, None, self.mu, self.saved, dys, None)


@dataclass(frozen=True)
class LogProbs:
    """log_probs (T, ...) of some actions, kept for later passes."""

    log_probs: Array
    at: Distributions
    saved: gaussian_density.Standardised


@dataclass(frozen=True)
class Weighted:
    """grad (T, P) of sum_n q_n log pi_n, kept for `r_backward`; with the net's pass."""

    grad: Array
    q: Array
    of: LogProbs
    primal: Primal


@dataclass(frozen=True)
class Tangents:
    """Tangents along v: log_probs (T, ...), rmu, rl, re, and what the layers saved."""

    v: Array
    rmu: Array
    rl: Array
    rsaved: list
    log_probs: Array = None
    re: Array = None


class GaussianPolicy:
    """pi(a | s; w) = N(a; mu(s), diag(e^2l)), mu the net's outputs.

    net          a Network on vectors (S,) with outputs (A,): rm.mlp((2, 100, 100, 2));
                 its loss is not used
    log_sigma    l at the start: a number, or one for each action dimension
    learn_sigma  True: l is a parameter; False: l keeps its value, and P is the net's
    Parameters (P,): the net's, then l (A,). num_params is P.
    Raises ArgumentError for another net, log_sigma or learn_sigma.
    Source: Williams 1992, section 6; Finn, Abbeel, Levine 2017, appendix A.2: a net for
    the mean and a log sigma of its own.
    """

    def __init__(self, net: Any, log_sigma: Any = 0.0, learn_sigma: bool = True) -> None:
        shape: tuple = getattr(net, "input_shape", None) or ()
        known = hasattr(net, "r_backward") and len(shape) == 1
        wanted = "a net on vectors with its input_shape, such as rm.mlp((2, 8, 2))"
        expect(known, "net", wanted, lambda: f"{type(net).__name__} on {shape}")
        outputs = net.output_shape(shape)
        expect(len(outputs) == 1, "net", "outputs of shape (A,)", lambda: f"{outputs}")
        self.net, self.kernels, self.learn_sigma = net, net.kernels, learn_sigma
        check_bool("learn_sigma", learn_sigma)
        self.state_dim, self.action_dim = shape[0], outputs[0]
        self.num_params = net.num_params + (self.action_dim if learn_sigma else 0)
        start = np.asarray(log_sigma)
        fits = start.dtype.kind in "fiu" and start.shape in ((), (self.action_dim,))
        wanted = f"a finite number, or {self.action_dim} of them"
        expect(fits and np.isfinite(start).all(), "log_sigma", wanted, lambda: repr(log_sigma))
        self.start = np.broadcast_to(start, (self.action_dim,)).astype(np.float64)

    def __repr__(self) -> str:
        return f"GaussianPolicy({self.num_params} parameters, {self.net!r})"

    def with_kernels(self, kernels: Any) -> "GaussianPolicy":
        """The same policy on another kernel set."""
        return type(self)(self.net.with_kernels(kernels), self.start, self.learn_sigma)

    # ---- parameters ------------------------------------------------------------------

    def init(self, seed: int | np.random.Generator = 0, dtype: Any = np.float64) -> np.ndarray:
        """A start (P,): the net's own, then log_sigma."""
        theta = self.net.init(seed, dtype)
        return np.concatenate([theta, self.start.astype(dtype)]) if self.learn_sigma else theta

    def log_sigma(self, w: Array) -> Array:
        """l (T or 1, A) of w (T or 1, P)."""
        if self.learn_sigma:
            return w[:, self.net.num_params :]
        return self.kernels.xp.asarray(self.start[None].astype(w.real.dtype))

    def check(self, w: Array, states: Array, actions: Array | None = None) -> None:
        """Raise ArgumentError unless parameters, states and actions fit each other."""
        expect_array("w", w, self.kernels)
        expect_array("states", states, self.kernels)
        S, A, T = self.state_dim, self.action_dim, len(states)
        ok = states.ndim >= 3 and states.shape[-1] == S and states.size > 0
        expect(ok, "states", f"shape (tasks, ..., {S})", lambda: f"{states.shape}")
        ok = w.ndim == 2 and w.shape[1] == self.num_params and len(w) in (1, T)
        wanted = f"shape ({T} or 1, {self.num_params})"
        expect(ok, "w", wanted, lambda: f"{w.shape}")
        if actions is not None:
            expect_array("actions", actions, self.kernels)
            fits = actions.shape == (*states.shape[:-1], A)
            wanted = f"shape {(*states.shape[:-1], A)}"
            expect(fits, "actions", wanted, lambda: f"{actions.shape}")

    # ---- mu and l: the net's four passes ---------------------------------------------

    def distributions(self, w: Array, states: Array, keep: bool = True) -> Distributions:
        """mu and l at the states (T, ..., S); keep=False: no later passes."""
        self.check(w, states)
        views = self.net.parameters.views(w[:, : self.net.num_params])
        flat = states.reshape(len(states), -1, self.state_dim)
        mu, saved = self.net.forward(views, flat, keep)
        return Distributions(mu, self.log_sigma(w), states.shape[:-1], views, saved)

    def pullback(self, at: Distributions, dmu: Array, dl: Array) -> tuple[Array, Primal]:
        """The gradient (T, P) from dmu (T, B, A) and dl (T, A); and the net's pass."""
        grad, dys = self.net.backward(at.w, at.saved, dmu)
        return self.joined(grad, dl), at.net_pass(dys)

    def tangents(self, at: Distributions, v: Array) -> Tangents:
        """The tangents of mu and l along v (T or 1, P)."""
        expect_array("v", v, self.kernels)
        ok = v.ndim == 2 and v.shape[1] == self.num_params and len(v) in (1, at.axes[0])
        wanted = f"shape ({at.axes[0]} or 1, {self.num_params})"
        expect(ok, "v", wanted, lambda: f"{v.shape}")
        rmu, rsaved = self.net.r_forward(at.net_pass(), v[:, : self.net.num_params])
        rl = self.log_sigma(v) if self.learn_sigma else 0 * at.l
        return Tangents(v, rmu, rl, rsaved)

    def r_pullback(self, primal: Primal, along: Tangents, rdmu: Array, rdl: Array) -> Array:
        """R{gradient} (T, P) from the tangents of dmu and dl."""
        v = along.v[:, : self.net.num_params]
        return self.joined(self.net.r_backward(primal, v, along.rsaved, rdmu), rdl)

    def joined(self, grad: Array, dl: Array) -> Array:
        """(T, P): the net's part, then that of l."""
        return self.kernels.concatenate([grad, dl], axis=1) if self.learn_sigma else grad

    # ---- log-probabilities: four passes ----------------------------------------------

    def forward(self, w: Array, states: Array, actions: Array, keep: bool = True) -> LogProbs:
        """log pi(a | s) of each step, (T, ...): the sum over action dimensions."""
        self.check(w, states, actions)
        at = self.distributions(w, states, keep)
        flat = actions.reshape(at.mu.shape)
        log_probs, saved = gaussian_density.forward(self.kernels.xp, at.mu, at.l, flat)
        return LogProbs(log_probs.reshape(at.axes), at, saved)

    def backward(self, here: LogProbs, q: Array) -> Weighted:
        """sum_n q_n grad log pi_n, (T, P), for weights q (T, ...)."""
        q = self.rows("q", q, here.at)
        grad, primal = self.pullback(here.at, *gaussian_density.backward(here.saved, q))
        return Weighted(grad, q, here, primal)

    def r_forward(self, here: LogProbs, v: Array) -> Tangents:
        """c_n = grad log pi_n . v of each step, (T, ...): `log_probs` of the result."""
        t = self.tangents(here.at, v)
        c, re = gaussian_density.r_forward(here.saved, t.rmu, t.rl)
        return Tangents(v, t.rmu, t.rl, t.rsaved, c.reshape(here.at.axes), re)

    def r_backward(self, back: Weighted, along: Tangents, rq: Array | None = None) -> Array:
        """sum_n (q_n grad^2 log pi_n v + rq_n grad log pi_n), (T, P): R{`backward`}.

        rq  the tangents of the weights (T, ...); None: weights that do not depend on w
        """
        rq = None if rq is None else self.rows("rq", rq, back.of.at)
        rdmu, rdl = gaussian_density.r_backward(back.of.saved, back.q, rq, along.re, along.rl)
        return self.r_pullback(back.primal, along, rdmu, rdl)

    def rows(self, name: str, q: Array, at: Distributions) -> Array:
        """Weights (T, ...) as (T, B)."""
        expect(q.shape == at.axes, name, f"shape {at.axes}", lambda: f"{q.shape}")
        return q.reshape(at.axes[0], -1)

    # ---- in one call -----------------------------------------------------------------

    def sample(self, w: Array, states: Array, rng: np.random.Generator) -> np.ndarray:
        """Actions (T, ..., A) at the states: mu + e^l times normal numbers of rng."""
        at = self.distributions(w, states, keep=False)
        noise = rng.standard_normal(at.mu.shape).astype(at.mu.dtype)
        actions = at.mu + np.exp(at.l)[:, None] * noise
        return actions.reshape(*at.axes, self.action_dim)

    def mean(self, w: Array, states: Array) -> Array:
        """mu (T, ..., A) at the states."""
        at = self.distributions(w, states, keep=False)
        return at.mu.reshape(*at.axes, self.action_dim)

    def log_probs(self, w: Array, states: Array, actions: Array) -> Array:
        """log pi(a | s) of each step, (T, ...), in a pass that keeps nothing."""
        return self.forward(w, states, actions, keep=False).log_probs

    def gradient(self, w: Array, states: Array, actions: Array, q: Array) -> Array:
        """sum_n q_n grad log pi_n, (T, P)."""
        return self.backward(self.forward(w, states, actions), q).grad

    def hvp(
        self, w: Array, states: Array, actions: Array, q: Array, v: Array, rq: Array | None = None
    ) -> Array:
        """sum_n (q_n grad^2 log pi_n v + rq_n grad log pi_n), (T, P)."""
        here = self.forward(w, states, actions)
        return self.r_backward(self.backward(here, q), self.r_forward(here, v), rq)
