"""Frozen batches of trajectories, where each estimator is a fixed function of theta."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refmaml.autodiff import formulas, jax_autodiff, torch_autodiff
from refmaml.models import mlp
from refmaml.rl.estimated_return import EstimatedReturn
from refmaml.rl.estimators import NaiveSurrogate
from refmaml.rl.gaussian_policy import GaussianPolicy
from refmaml.rl.trajectories import Trajectories

# No two of these, and no products of them, are equal: a factor names the axis it is
# from. Tasks, trajectories, steps, action dimensions.
T, N, H, A = 2, 5, 7, 3
STATES, HIDDEN = 2, 4
INNER_LR = {"trajectories": 0.02, "steps": 0.02 * H}  # the same steps
LENGTHS = {T: "the number of tasks", N: "the number of trajectories", H: "the number of steps",
           A: "the number of action dimensions", N * H: "the number of all steps"}  # fmt: skip
FRAMEWORKS = {"torch": torch_autodiff, "jax": jax_autodiff}


class TaskTrajectories(NamedTuple):
    """Trajectories as a function receives them: arrays (T, N, H, ...) of its framework.

    advantages  returns to go of the rewards, without a baseline and without discount
    log_probs   log pi(a | s), the sum over action dimensions, of the policy that drew
                the actions
    """

    states: Any
    actions: Any
    rewards: Any
    advantages: Any
    log_probs: Any


class PolicyBatch(NamedTuple):
    """inner: K TaskTrajectories, drawn by the policies at phi_0 ... phi_{K-1};
    second: K others of the same policies; outer: those of the adapted policies."""

    inner: tuple
    second: tuple
    outer: TaskTrajectories


@dataclass(frozen=True)
class PolicyProblem:
    """The first argument of a function fn(problem, params, batch).

    framework    "numpy", "torch" or "jax"
    inner_lr     alpha, of phi_{k+1} = phi_k + alpha g_k
    inner_steps  K
    over         "trajectories" or "steps": what sums over a task's steps are divided by
    mean         mean(params, states (N, H, S)) -> mu (N, H, A) of one task
    log_probs    log_probs(params, states, actions) -> (N, H): sums over action
                 dimensions. In PyTorch and JAX both can be differentiated twice
    gradient     NumPy only: gradient(params, states, actions, q) -> sum_n q_n grad
                 log pi_n by name, q (N, H)
    tangent      NumPy only: tangent(params, states, actions, v) -> grad log pi_n . v
                 (N, H), v by name
    hvp          NumPy only: hvp(params, states, actions, q, v) -> sum_n q_n grad^2
                 log pi_n v by name
    params has the net's names, "0.weight" (out, in), ..., and "log_sigma" (A,).
    """

    framework: str
    inner_lr: float
    inner_steps: int
    over: str
    mean: Any
    log_probs: Any
    gradient: Any = None
    tangent: Any = None
    hvp: Any = None


class Probe(NamedTuple):
    """One set of frozen batches, and the parameters theta (P,)."""

    policy: GaussianPolicy
    theta: np.ndarray
    inner: list
    second: list
    outer: Trajectories
    over: str

    @property
    def rate(self) -> float:
        """alpha."""
        return INNER_LR[self.over]

    def named(self, w: np.ndarray) -> dict[str, np.ndarray]:
        """A flat vector (P,) by name."""
        net = self.policy.net
        return {**net.named(w[: net.num_params]), "log_sigma": w[net.num_params :]}

    def mean_return(self) -> np.ndarray:
        """J of each task, (T,): the mean return, or the mean reward of a step."""
        J = self.outer.returns().mean(axis=1)
        return J / H if self.over == "steps" else J


def probe_of(seed: int, steps: int, over: str, precision: str = "float64") -> Probe:
    """The Probe of a seed: random states and rewards; the policies' own actions."""
    rng = np.random.default_rng([seed, steps])
    net = mlp((STATES, HIDDEN, A), activation="tanh")
    policy = GaussianPolicy(net, log_sigma=-0.3)
    theta = policy.init(rng) + 0.4 * rng.standard_normal(policy.num_params)
    theta = theta.astype(precision).astype(np.float64)
    phi, inner, second = theta[None], [], []
    for _ in range(steps):
        inner.append(drawn(policy, phi, rng, precision))
        second.append(drawn(policy, phi, rng, precision))
        estimated = EstimatedReturn(policy, NaiveSurrogate(), inner[-1], over)
        phi = phi + INNER_LR[over] * estimated.gradient(phi)
    return Probe(policy, theta, inner, second, drawn(policy, phi, rng, precision), over)


def drawn(policy: GaussianPolicy, w: np.ndarray, rng: Any, precision: str) -> Trajectories:
    """Trajectories whose actions the policy draws at w (T or 1, P)."""

    def rounded(a: np.ndarray) -> np.ndarray:
        return a.astype(precision).astype(np.float64)

    states = rounded(rng.standard_normal((T, N, H, STATES)))
    actions = rounded(policy.sample(w, states, rng))
    rewards = rounded(rng.standard_normal((T, N, H)) - 0.5)
    log_probs = policy.log_probs(w, states, actions)
    batch = Trajectories(states, actions, rewards, log_probs=log_probs)
    return batch.with_advantages(batch.returns_to_go())


# ---- to the user's function ----------------------------------------------------------


def arguments_of(probe: Probe, lib: Any, precision: str) -> tuple:
    """(problem, params, batch) in the framework `lib`: fresh arrays."""

    def cast(a: np.ndarray) -> Any:
        return lib.array(a.astype(precision))

    def given(b: Trajectories) -> TaskTrajectories:
        parts = (b.states, b.actions, b.rewards, b.advantages, b.log_probs)
        return TaskTrajectories(*map(cast, parts))

    params = {name: cast(a) for name, a in probe.named(probe.theta).items()}
    batch = PolicyBatch(
        tuple(map(given, probe.inner)), tuple(map(given, probe.second)), given(probe.outer)
    )
    functions = of_numpy(probe) if lib.name == "numpy" else of_autodiff(probe, lib.name)
    steps = len(probe.inner)
    problem = PolicyProblem(lib.name, probe.rate, steps, probe.over, **functions)
    return problem, params, batch


def of_autodiff(probe: Probe, library: str) -> dict[str, Any]:
    """mean and log_probs in operations of PyTorch or JAX."""
    f, layers = FRAMEWORKS[library].framework(), probe.policy.net.named_layers

    def mean(params: dict, states: Any) -> Any:
        flat = states.reshape(-1, STATES)
        return formulas.named_outputs(f, layers, params, flat, formulas.FORWARD).reshape(
            *states.shape[:-1], A
        )

    def log_probs(params: dict, states: Any, actions: Any) -> Any:
        l = params["log_sigma"]
        e = (actions - mean(params, states)) * f.xp.exp(-l)
        return -(e * e).sum(-1) / 2 - l.sum() - A * np.log(2 * np.pi) / 2

    return {"mean": mean, "log_probs": log_probs}


def of_numpy(probe: Probe) -> dict[str, Any]:
    """All functions by the policy's own passes, on named arrays of one task."""
    policy, names = probe.policy, [*probe.policy.net.shapes, "log_sigma"]

    def flat(named: dict) -> np.ndarray:
        return np.concatenate([np.ravel(named[name]) for name in names])[None]

    def log_probs(params: dict, states: Any, actions: Any) -> Any:
        return policy.log_probs(flat(params), states[None], actions[None])[0]

    def gradient(params: dict, states: Any, actions: Any, q: Any) -> Any:
        given = states[None], actions[None], np.asarray(q)[None]
        return probe.named(policy.gradient(flat(params), *given)[0])

    def tangent(params: dict, states: Any, actions: Any, v: dict) -> Any:
        here = policy.forward(flat(params), states[None], actions[None])
        return policy.r_forward(here, flat(v)).log_probs[0]

    def hvp(params: dict, states: Any, actions: Any, q: Any, v: dict) -> Any:
        given = states[None], actions[None], np.asarray(q)[None]
        return probe.named(policy.hvp(flat(params), *given, flat(v))[0])

    return {
        "mean": lambda params, states: policy.mean(flat(params), states[None])[0],
        "log_probs": log_probs,
        "gradient": gradient,
        "tangent": tangent,
        "hvp": hvp,
    }
