"""The linear baseline of policy gradients: returns regressed on features of the states.

    V(s, t) = w' [s, s^2, tau, tau^2, tau^3, 1],  tau = t / 100
    w = argmin sum_n (G_n - V_n)^2 + ridge |w|^2, for each task

Sources: Duan et al. 2016; Finn, Abbeel, Levine 2017, appendix A.2.
"""

from dataclasses import dataclass

import numpy as np

from refmaml.arguments import check_positive_number, set_fields
from refmaml.errors import expect
from refmaml.rl.trajectories import Trajectories


@dataclass(frozen=True)
class LinearBaseline:
    """The baseline; `values` fits it on a batch and evaluates it there.

    ridge  > 0, added to the diagonal of the normal equations
    unit   > 0: steps in one unit of tau
    Raises ArgumentError for other numbers.
    """

    ridge: float = 1e-5
    unit: float = 100.0

    def __post_init__(self) -> None:
        set_fields(
            self,
            ridge=check_positive_number("ridge", self.ridge),
            unit=check_positive_number("unit", self.unit),
        )

    def features(self, batch: Trajectories) -> np.ndarray:
        """(T, N, H, 2 S + 4) in float64."""
        s = batch.states.astype(np.float64)
        tau = np.broadcast_to((np.arange(s.shape[2]) / self.unit)[:, None], (*s.shape[:3], 1))
        return np.concatenate([s, s**2, tau, tau**2, tau**3, np.ones_like(tau)], axis=3)

    def fit(self, batch: Trajectories, returns: np.ndarray) -> np.ndarray:
        """w (T, 2 S + 4) for returns G (T, N, H), at the valid steps."""
        shape = getattr(returns, "shape", None)
        expect(shape == batch.axes, "returns", f"shape {batch.axes}", lambda: f"{shape}")
        T, valid = len(batch), batch.valid.astype(np.float64)
        F = (self.features(batch) * valid[..., None]).reshape(T, -1, 2 * batch.states.shape[3] + 4)
        G = (returns * valid).reshape(T, -1, 1)
        transposed = F.swapaxes(1, 2)
        A = transposed @ F + self.ridge * np.eye(F.shape[2])
        return np.linalg.solve(A, transposed @ G)[..., 0]

    def predict(self, batch: Trajectories, w: np.ndarray) -> np.ndarray:
        """V (T, N, H) in the precision of the rewards; 0 at masked steps."""
        V = np.einsum("tnhf,tf->tnh", self.features(batch), w)
        return V.astype(batch.rewards.dtype) * batch.valid

    def values(self, batch: Trajectories, returns: np.ndarray) -> np.ndarray:
        """The fit's own predictions, (T, N, H)."""
        return self.predict(batch, self.fit(batch, returns))
