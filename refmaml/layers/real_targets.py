"""Losses of real targets that are written with k.xp alone.

Their arrays are as small as a net's outputs, so plain NumPy is fast enough for them on
every kernel set, and they have no kernels of their own.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import check_choice
from refmaml.errors import expect
from refmaml.layers.losses import REDUCTIONS


@dataclass(frozen=True)
class RealTargets:
    """The base of losses whose targets are real numbers, D of them for each example.

    reduction  the scale in front of the sum over N examples and D targets: "mean"
               1 / (N D), "sum" 1, "sum/K" 1 / N (K = N shots of one regression)
    A loss adds forward, backward and r_backward; see losses.py.
    """

    reduction: str = "mean"

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, REDUCTIONS)

    def target_shape(self, output_shape):
        """The shape of one example's targets: here that of the outputs, (D,)."""
        return tuple(output_shape)

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are real and have the right shape."""
        name = type(self).__name__
        expect(len(output_shape) == 1, "net", f"outputs of shape (D,) for {name}", output_shape)
        wanted = (*examples, *self.target_shape(output_shape))
        expect(targets.dtype.kind in "fc", "y", "real numbers", lambda: f"dtype {targets.dtype}")
        expect(
            targets.shape == wanted,
            "y",
            lambda: f"shape {wanted} for {name}",
            lambda: f"{targets.shape}",
        )

    def extremes(self, targets):
        """An empty list: any real number is a target."""
        return []

    def check_values(self, output_shape, extremes):
        """Accept every target: any real number is one."""

    def scale(self, examples, targets):
        """The factor in front of the sum, for N examples of D targets."""
        return {"mean": 1 / (examples * targets), "sum": 1.0, "sum/K": 1 / examples}[self.reduction]

    def accuracy(self, z, targets):
        """None: a regression has no accuracy."""
        return None

    def random_targets(self, rng, shape):
        """Targets for outputs of `shape` (T, N, D), to check the loss with."""
        T, N, *outputs = shape
        return rng.standard_normal((T, N, *self.target_shape(outputs)))


class Derivatives(NamedTuple):
    """What an elementwise loss saves: scale l' and scale l'', each (T, N, D)."""

    first: np.ndarray
    second: np.ndarray


class ElementwiseLoss(RealTargets):
    """loss[t] = scale sum_{n,d} l(z, target), entry by entry.

    dz = scale l'(z), rdz = scale l''(z) rz. A loss has l, l' and l'' as `terms`.
    """

    def terms(self, k: Any, z: np.ndarray, targets: np.ndarray) -> tuple:
        """(l, l', l'') at z, each (T, N, D)."""
        raise NotImplementedError

    def forward(self, k, z, targets):
        scale = self.scale(*z.shape[1:])
        loss, first, second = self.terms(k, z, targets)
        return scale * loss.sum(axis=(1, 2)), Derivatives(scale * first, scale * second)

    def backward(self, k, saved):
        return saved.first.copy()

    def r_backward(self, k, saved, rz):
        return saved.second * rz
