"""Losses: one number for each task from the net's outputs z (T, N, D).

    loss, saved = loss.forward(k, z, targets)      (T,)
    dz          = loss.backward(k, saved)          d loss[t] / d z[t]
    rdz         = loss.r_backward(k, saved, rz)    (d^2 loss / dz^2) rz

The scale in front of the sum is explicit, as an inner step size depends on it:

    "mean"     1 / N             the default, as in deep-learning libraries
    "sum"      1
    "sum/K"    D / N = 1 / K     for N = D K examples of D classes with K shots each

MAML's Omniglot code uses "sum/K" (finn/maml, utils.py): its step size 0.4 is a step
size of 2.0 on the 5-way mean.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.arguments import check_choice, check_positive_number, set_fields
from refmaml.errors import expect

REDUCTIONS = ("mean", "sum", "sum/K")


class Predicted(NamedTuple):
    """What cross-entropy saves: probabilities p (T, N, C), labels (T, N), the scale."""

    p: np.ndarray
    labels: np.ndarray
    scale: float


@dataclass(frozen=True)
class CrossEntropy:
    """loss[t] = scale sum_n -log softmax(z[t,n])[label[t,n]].

    Targets are integer labels (T, N) in [0, C).
    reduction  the scale: "mean" 1 / N, "sum" 1, "sum/K" C / N
    Label smoothing and class weights are fields of WeightedCrossEntropy.
    Raises ArgumentError for another reduction.
    """

    reduction: str = "mean"

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, REDUCTIONS)

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are integer labels (T, N)."""
        ok = len(output_shape) == 1
        expect(ok, "net", "outputs of shape (classes,) for CrossEntropy", f"{output_shape}")
        expect(targets.dtype.kind in "iu", "y", "integer labels", lambda: f"dtype {targets.dtype}")
        ok = targets.shape == examples
        expect(ok, "y", f"shape {examples}, a label for each example", f"{targets.shape}")

    def extremes(self, targets):
        """The lowest and the highest label, for check_values."""
        return [targets.min(), targets.max()]

    def check_values(self, output_shape, extremes):
        """Raise ArgumentError for a label outside the outputs' range."""
        low, high = map(int, extremes)
        ok = low >= 0 and high < output_shape[0]
        wanted = f"labels in 0..{output_shape[0] - 1}"
        expect(ok, "y", wanted, f"a label {low if low < 0 else high}")

    def scale(self, examples, classes):
        """The factor in front of the sum, for N examples of C classes."""
        return {"mean": 1 / examples, "sum": 1.0, "sum/K": classes / examples}[self.reduction]

    def forward(self, k, z, labels):
        T, N, C = z.shape
        loss, p, scale = k.empty((T,), z.dtype), k.empty(z.shape, z.dtype), self.scale(N, C)
        k.cross_entropy_forward(loss, p, z, labels, scale)
        return loss, Predicted(p, labels, scale)

    def backward(self, k, saved):
        dz = k.empty(saved.p.shape, saved.p.dtype)
        k.cross_entropy_backward(dz, *saved)
        return dz

    def r_backward(self, k, saved, rz):
        rdz = k.empty(rz.shape, rz.dtype)
        k.cross_entropy_r_backward(rdz, saved.p, rz, saved.scale)
        return rdz

    def accuracy(self, z, labels):
        """The fraction of examples whose largest output is their label, (T,)."""
        return (z.real.argmax(axis=-1) == labels).mean(axis=-1)


class Residual(NamedTuple):
    """What squared error saves: e = z - target (T, N, D), and the scale."""

    e: np.ndarray
    scale: float


@dataclass(frozen=True)
class MSE:
    """loss[t] = factor scale sum_{n,d} (z - target)^2.

    Targets have the outputs' shape (T, N, D).
    reduction  the scale: "mean" 1 / (N D), "sum" 1, "sum/K" 1 / N (K = N shots of one
               regression)
    factor     a number > 0; 0.5 gives the half square
    Raises ArgumentError for another reduction or factor.
    """

    reduction: str = "mean"
    factor: float = 1.0

    def __post_init__(self) -> None:
        check_choice("reduction", self.reduction, REDUCTIONS)
        set_fields(self, factor=check_positive_number("factor", self.factor))

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are real and have the outputs' shape."""
        wanted = (*examples, *output_shape)
        ok = len(output_shape) == 1
        expect(ok, "net", "outputs of shape (D,) for MSE", lambda: f"{output_shape}")
        expect(targets.dtype.kind in "fc", "y", "real numbers", lambda: f"dtype {targets.dtype}")
        ok = targets.shape == wanted
        expect(ok, "y", lambda: f"shape {wanted}, as the outputs", lambda: f"{targets.shape}")

    def extremes(self, targets):
        """An empty list: any real number is a target."""
        return []

    def check_values(self, output_shape, extremes):
        """Accept every target: any real number is one."""

    def scale(self, examples, outputs):
        """The factor in front of the sum, for N examples of D outputs."""
        scales = {"mean": 1 / (examples * outputs), "sum": 1.0, "sum/K": 1 / examples}
        return self.factor * scales[self.reduction]

    def forward(self, k, z, targets):
        T, N, D = z.shape
        loss, e, scale = k.empty((T,), z.dtype), k.empty(z.shape, z.dtype), self.scale(N, D)
        k.squared_error_forward(loss, e, z, targets, scale)
        return loss, Residual(e, scale)

    def backward(self, k, saved):
        dz = k.empty(saved.e.shape, saved.e.dtype)
        k.squared_error_backward(dz, *saved)
        return dz

    def r_backward(self, k, saved, rz):
        rdz = k.empty(rz.shape, rz.dtype)
        k.squared_error_r_backward(rdz, rz, saved.scale)
        return rdz

    def accuracy(self, z, targets):
        """None: a regression has no accuracy."""
        return None
