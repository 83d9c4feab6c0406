"""Estimators of the return on a frozen batch, as functions of its log-probabilities.

Each has the interface of a loss: forward, backward and r_backward on the "outputs"
l = log pi(a | s; w), (T, N, H). All have the same gradient at the parameters that drew
the batch, the policy gradient sum q_n grad l_n. They differ in their second derivative,
and so in the meta-gradient that differentiates through one step of the policy gradient:

    J_II(theta) = J(theta + alpha grad J)          expected return after the exact step
    J_I(theta)  = E[J(theta + alpha g(batch))]     ... after the step that a batch gives

With q_n the weights (advantages over the number of trajectories), old the policy that
drew the batch, rho = exp(l - old), c_n = grad l_n . v:

    NaiveSurrogate  sum_n q_n l_n            H v: sum_n q_n grad^2 l_n v
    LVC             sum_n q_n rho_n          ... + sum_n q_n c_n grad l_n
    DiCE            sum_t r_t prod_{u<=t} rho_u,  r_t = q_t - q_{t+1}
                    ... + sum_s w_s grad l_s,  w_s = sum_{t>=s} r_t sum_{u<=t} c_u
"""

from typing import Any, NamedTuple

from refmaml.layers.layer import Array


class Frozen(NamedTuple):
    """A batch as the estimators read it; each (T, N, H).

    q     the weights of the steps, 0 at masked ones
    mask  1 at valid steps, 0 elsewhere
    old   log-probabilities under the policy that drew the batch; None: the policy at
          the parameters of the pass, so that every rho is 1 (a "magic box")
    """

    q: Array
    mask: Array
    old: Array | None = None

    def log_ratio(self, log_probs: Array) -> Array:
        """l - old at valid steps, 0 elsewhere."""
        old = log_probs if self.old is None else self.old
        return (log_probs - old) * self.mask


class Estimator:
    """The base of the estimators.

    k           a kernel set
    log_probs   l (T, N, H); frozen: a Frozen batch
    saved       what `forward` leaves for the later passes
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def forward(self, k: Any, log_probs: Array, frozen: Frozen) -> tuple[Array, Any]:
        """(value (T,), saved)."""
        raise NotImplementedError

    def backward(self, k: Any, saved: Any) -> Array:
        """dl (T, N, H): the derivative of the value in each log-probability."""
        raise NotImplementedError

    def r_backward(self, k: Any, saved: Any, rlog_probs: Array) -> Array | None:
        """R{dl} for tangents rl (T, N, H) of the log-probabilities; None: it is 0."""
        raise NotImplementedError


class NaiveSurrogate(Estimator):
    """sum_n q_n log pi_n: what programs differentiate twice, and should not.

    Its Hessian lacks the part that comes from the change of the distribution of the
    trajectories. So the meta-gradient through it estimates that of neither objective.
    With E-MAML's score term it is exact for J_I, at every number of trajectories.
    With a linear mean, a fixed sigma and whitened advantages its Hessian is 0 on every
    batch, and what remains is first-order MAML. The value is no estimate of the return.
    Source: Finn, Abbeel, Levine 2017, equation 4, as its code computes it; the missing
    part: Al-Shedivat et al. 2018; Stadie et al. 2018; Foerster et al. 2018.
    """

    def forward(self, k: Any, log_probs: Array, frozen: Frozen) -> tuple[Array, Array]:
        return (frozen.q * log_probs).sum(axis=(1, 2)), frozen.q

    def backward(self, k: Any, saved: Array) -> Array:
        return saved

    def r_backward(self, k: Any, saved: Array, rlog_probs: Array) -> None:
        return None


class LVC(Estimator):
    """sum_n q_n rho_n: the low-variance curvature.

    It estimates J_II. Its Hessian takes the advantages as constants: it leaves out how
    later actions change with theta. Exact in expectation for trajectories of one step;
    biased for longer ones, with less noise than DiCE.
    Source: Rothfuss et al. 2019 (ProMP), section 4.
    """

    def forward(self, k: Any, log_probs: Array, frozen: Frozen) -> tuple[Array, Array]:
        weighted = frozen.q * k.xp.exp(frozen.log_ratio(log_probs))
        return weighted.sum(axis=(1, 2)), weighted

    def backward(self, k: Any, saved: Array) -> Array:
        return saved

    def r_backward(self, k: Any, saved: Array, rlog_probs: Array) -> Array:
        return saved * rlog_probs


class DiCE(Estimator):
    """sum_t (q_t - q_{t+1}) prod_{u<=t} rho_u: the ratio of whole trajectories.

    q_t - q_{t+1} is the reward of step t where q are returns to go. With a baseline in
    q this is Loaded DiCE with lambda = 1. It estimates J_II: gradient and Hessian are
    unbiased at every horizon. Step and Hessian on one batch of N trajectories are not
    independent, which leaves a bias c / N in the meta-gradient; see `second` in
    PolicyMAML.
    Sources: Foerster et al. 2018 (DiCE), section 4; Farquhar et al. 2019 (Loaded DiCE),
    equation 12.
    """

    def forward(self, k: Any, log_probs: Array, frozen: Frozen) -> tuple[Array, Array]:
        xp, q = k.xp, frozen.q
        after = xp.concatenate([q[:, :, 1:], xp.zeros_like(q[:, :, :1])], axis=2)
        ratios = xp.exp(xp.cumsum(frozen.log_ratio(log_probs), axis=2))
        rewards = (q - after) * ratios
        return rewards.sum(axis=(1, 2)), rewards  # 0 at masked steps, which come last

    def backward(self, k: Any, saved: Array) -> Array:
        return to_go(k.xp, saved)

    def r_backward(self, k: Any, saved: Array, rlog_probs: Array) -> Array:
        return to_go(k.xp, saved * k.xp.cumsum(rlog_probs, axis=2))


class Score(Estimator):
    """sum_n log pi_n over all valid steps of all trajectories: the log-likelihood.

    E-MAML's term for J_I: its gradient times the return after adaptation. It is a SUM
    over the N trajectories, also where the step is a mean. The weights q are not read.
    Sources: Stadie et al. 2018 (E-MAML); Al-Shedivat et al. 2018, equation 8.
    """

    def forward(self, k: Any, log_probs: Array, frozen: Frozen) -> tuple[Array, Array]:
        return (frozen.mask * log_probs).sum(axis=(1, 2)), frozen.mask

    def backward(self, k: Any, saved: Array) -> Array:
        return saved

    def r_backward(self, k: Any, saved: Array, rlog_probs: Array) -> None:
        return None


def to_go(xp: Any, x: Array) -> Array:
    """sum_{t >= s} x_t along the last axis."""
    return xp.flip(xp.cumsum(xp.flip(x, axis=2), axis=2), axis=2)
