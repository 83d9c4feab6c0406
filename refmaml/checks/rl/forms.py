"""Inner objectives on a frozen batch, right and wrong, in one form.

    F(l) = sum_i q_i l_i,  or  sum_i q_i exp((M (l - old))_i)

for the log-probabilities l of all steps of a task. M is the identity (LVC), sums of
each trajectory's earlier steps (DiCE), or what programs have in their place. The code
shares nothing with refmaml.rl.estimators, which it is compared with.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from refmaml.checks.rl.probe import H, N


def identity() -> np.ndarray:
    """(N H, N H): each step alone."""
    return np.eye(N * H)


def prefixes() -> np.ndarray:
    """(N H, N H): sums over the earlier steps of the same trajectory, and the step."""
    return np.kron(np.eye(N), np.tri(H))


def divided_prefixes(wraps: bool) -> np.ndarray:
    """(N H, N H): c_i = l_i + c_{i-1} / N within a trajectory.

    wraps  c_{-1} of the first step is l of the last one, as a negative index gives it
    """
    M = np.zeros((N * H, N * H))
    for i in range(N * H):
        M[i, i] = 1
        if i % H:
            M[i] += M[i - 1] / N
    if wraps:  # M[0] enters the later rows of the first trajectory
        for i in range(H):
            M[i, -1] += N ** -(i + 1.0)
    return M


class Form(NamedTuple):
    """One objective.

    key      a word for it
    matrix   a function that makes M
    rewards  q are rewards; otherwise returns to go
    ratio    the second line of the module; False: the first
    """

    key: str
    matrix: Callable[[], np.ndarray]
    rewards: bool = False
    ratio: bool = True


NAIVE = Form("naive", identity, ratio=False)
LVC = Form("lvc", identity)
DICE = Form("dice", prefixes, rewards=True)
RIGHT_FORMS = (NAIVE, LVC, DICE)
WRONG_FORMS = (
    Form("own rewards, naive", identity, rewards=True, ratio=False),
    Form("own rewards, ratio", identity, rewards=True),
    Form("counted for each earlier step", prefixes),
    Form("divided by the episode count", lambda: divided_prefixes(True)),
    Form("divided by the episode count", lambda: divided_prefixes(False)),
    Form("divided by the episode count", lambda: divided_prefixes(True), rewards=True),
    Form("divided by the episode count", lambda: divided_prefixes(False), rewards=True),
)


class Derivatives:
    """F on one batch, for log-probabilities m l: dF/dl, and R{dF/dl} along rl.

    q   (T, N H); old: (T, N H), or None: the log-probabilities of the pass
    m   a factor of the log-probabilities: 1, or 1 / A where they are means
    """

    def __init__(self, form: Form, q: np.ndarray, old: np.ndarray | None, m: float) -> None:
        self.form, self.q, self.old, self.m, self.M = form, q, old, m, form.matrix()

    def weights(self, l: np.ndarray) -> np.ndarray:
        """q_i exp(...)_i of each term, or q_i."""
        if not self.form.ratio or self.old is None:
            return self.q
        return self.q * np.exp((self.m * l - self.old) @ self.M.T)

    def first(self, l: np.ndarray) -> np.ndarray:
        """dF/dl (T, N H)."""
        return self.m * self.weights(l) @ self.M

    def second(self, l: np.ndarray, rl: np.ndarray) -> np.ndarray:
        """R{dF/dl} (T, N H)."""
        if not self.form.ratio:
            return 0 * rl
        return self.m**2 * (self.weights(l) * (rl @ self.M.T)) @ self.M
