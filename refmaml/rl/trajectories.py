"""A batch of trajectories as padded arrays, its returns and its advantages."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refmaml.arguments import check_number
from refmaml.arrays import described
from refmaml.errors import expect

TINY = 1e-8  # added to the deviation of advantages before they are divided by it


@dataclass(frozen=True, eq=False)
class Trajectories:
    """N trajectories of at most H steps for each of T tasks.

    states     (T, N, H, S): where each step starts
    actions    (T, N, H, A)
    rewards    (T, N, H): what the step earned
    mask       (T, N, H) of 0 and 1: 1 up to the trajectory's last step, then 0; None:
               every trajectory has H steps
    log_probs  (T, N, H): log pi(a | s) under the policy that drew the actions; None:
               not known. Estimators read them where the policy differs from that one
    advantages (T, N, H): what estimators weight the steps with; None: not computed yet
    Numbers of masked steps are not used, but have to be finite.
    Raises ArgumentError for other shapes, kinds of numbers or masks.
    """

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    mask: Any = None
    log_probs: Any = None
    advantages: Any = None

    def __post_init__(self) -> None:
        shape = getattr(self.states, "shape", ())
        wanted = "an array (tasks, trajectories, steps, numbers), none of them 0"
        expect(len(shape) == 4 and 0 not in shape, "states", wanted, lambda: described(self.states))
        if self.mask is None:
            kind = getattr(self.rewards, "dtype", np.dtype(float))
            object.__setattr__(self, "mask", np.ones(shape[:3], kind))
        check_floats("states", self.states, shape)
        actions = getattr(self.actions, "shape", ())
        check_floats("actions", self.actions, (*shape[:3], *(actions[3:4] or (1,))))
        check_floats("rewards", self.rewards, shape[:3])
        check_mask(self.mask, shape[:3])
        for name in ("log_probs", "advantages"):
            if getattr(self, name) is not None:
                check_floats(name, getattr(self, name), shape[:3])

    def __len__(self) -> int:
        """The number of tasks T."""
        return len(self.states)

    @property
    def axes(self) -> tuple[int, int, int]:
        """(T, N, H)."""
        T, N, H = self.rewards.shape
        return T, N, H

    @property
    def valid(self) -> np.ndarray:
        """The mask in the precision of the rewards."""
        return np.asarray(self.mask).astype(self.rewards.dtype, copy=False)

    @property
    def num_steps(self) -> np.ndarray:
        """The number of valid steps of each task, (T,)."""
        return np.asarray(self.mask).astype(int).sum(axis=(1, 2))

    def episodes(self, some: slice) -> "Trajectories":
        """The trajectories in a slice, of every task."""
        expect(isinstance(some, slice), "some", "a slice, as slice(0, 8)", lambda: repr(some))
        named = {name: a for name, a in vars(self).items() if a is not None}
        return Trajectories(**{name: a[:, some] for name, a in named.items()})

    def with_advantages(self, advantages: np.ndarray) -> "Trajectories":
        """The same trajectories with other advantages (T, N, H)."""
        return replace(self, advantages=advantages)

    # ---- returns ---------------------------------------------------------------------

    def returns(self) -> np.ndarray:
        """sum_t r_t of each trajectory, (T, N)."""
        return (self.rewards * self.valid).sum(axis=2)

    def returns_to_go(self, gamma: float = 1.0) -> np.ndarray:
        """G_t = r_t + gamma G_{t+1}, (T, N, H); 0 at masked steps."""
        return backward_sums(self.rewards * self.valid, check_discount("gamma", gamma))

    def discount(self, values: np.ndarray, gamma: float) -> np.ndarray:
        """gamma^t values (T, N, H).

        The discounted return's own policy gradient has the weights gamma^t G_t; most
        programs leave gamma^t out.
        """
        powers = check_discount("gamma", gamma) ** np.arange(values.shape[2])
        return values * powers.astype(values.dtype)

    # ---- advantages ------------------------------------------------------------------

    def gae(self, values: np.ndarray, gamma: float = 1.0, lam: float = 1.0) -> np.ndarray:
        """Generalised advantages A_t = d_t + gamma lam A_{t+1}, (T, N, H).

        d_t = r_t + gamma V_{t+1} - V_t for values V (T, N, H) of the states; the value
        after a trajectory's last step is 0. lam = 1: A_t = G_t - V_t.
        Source: Schulman et al. 2016, equation 16.
        """
        shape = getattr(values, "shape", None)
        expect(shape == self.axes, "values", f"shape {self.axes}", lambda: f"{shape}")
        gamma, lam = check_discount("gamma", gamma), check_discount("lam", lam)
        V = values * self.valid
        after = np.concatenate([V[:, :, 1:], np.zeros_like(V[:, :, :1])], axis=2)
        return backward_sums((self.rewards + gamma * after - V) * self.valid, gamma * lam)

    def whitened(self, advantages: np.ndarray) -> np.ndarray:
        """(A - mean) / (deviation + 1e-8) over each task's valid steps, (T, N, H)."""
        valid, count = self.valid, self.num_steps[:, None, None].astype(self.rewards.dtype)
        axes = (1, 2)
        off = advantages - (advantages * valid).sum(axis=axes, keepdims=True) / count
        variance = (off * off * valid).sum(axis=axes, keepdims=True) / count
        return off * valid / (np.sqrt(variance) + TINY)


def backward_sums(x: np.ndarray, factor: float) -> np.ndarray:
    """y_t = x_t + factor y_{t+1} along the last axis."""
    y, after = np.empty_like(x), 0 * x[..., -1]
    for t in range(x.shape[-1] - 1, -1, -1):
        after = x[..., t] + factor * after
        y[..., t] = after
    return y


def check_discount(name: str, value: float) -> float:
    """The number, if it is one in [0, 1]."""
    number = check_number(name, value)
    expect(0 <= number <= 1, name, "a number in [0, 1]", lambda: repr(value))
    return number


def check_floats(name: str, a: np.ndarray, shape: tuple) -> None:
    """Raise ArgumentError unless `a` holds finite real numbers in that shape."""
    ok = isinstance(a, np.ndarray) and not isinstance(a, np.ma.MaskedArray)
    expect(ok, name, "a NumPy array", lambda: described(a))
    expect(a.shape == shape and a.size, name, f"shape {shape}", lambda: f"{a.shape}")
    expect(a.dtype.kind == "f", name, "real numbers", lambda: f"dtype {a.dtype}")
    expect(np.isfinite(a).all(), name, "finite numbers", "NaN or infinity")


def check_mask(mask: np.ndarray | None, shape: tuple) -> None:
    """Raise ArgumentError unless every trajectory is valid from its first step on."""
    ok = isinstance(mask, np.ndarray) and mask.shape == shape and mask.dtype.kind in "bfiu"
    expect(ok, "mask", f"an array of shape {shape}", lambda: described(mask))
    a = np.asarray(mask)
    expect(np.isin(a, (0, 1)).all(), "mask", "0 and 1 alone", "other numbers")
    expect((a[:, :, 0] == 1).all(), "mask", "1 at the first step", "a trajectory without steps")
    ends_once = (a[:, :, 1:].astype(int) <= a[:, :, :-1].astype(int)).all()
    expect(ends_once, "mask", "1 up to the end of a trajectory, then 0", "a 1 after a 0")
