"""Losses: one number per task from the net's outputs z (T, N, D), with their gradient and their Hessian's product.

    loss, saved = loss.forward(k, z, targets)         (T,)
    dz          = loss.backward(k, saved)             d loss[t] / d z[t]
    rdz         = loss.r_backward(k, saved, rz)       (d^2 loss / dz^2) rz

The scale in front of the sum is explicit, because an inner step size means nothing without it:

    "mean"     1 / N                                   what deep-learning libraries mean by default
    "sum"      1
    "sum/K"    D / N = 1 / K                           for N = D K examples of D classes, K shots each: MAML's Omniglot code, whose
                                                       step size 0.4 is therefore 2.0 on the 5-way mean (finn/maml, utils.py)
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.errors import expect

REDUCTIONS = ("mean", "sum", "sum/K")


def expect_reduction(reduction):
    expect(reduction in REDUCTIONS, "reduction", f"one of {', '.join(REDUCTIONS)}", repr(reduction))


class Predicted(NamedTuple):
    """What cross-entropy leaves: probabilities p (T, N, C), labels (T, N), the scale."""

    p: np.ndarray
    labels: np.ndarray
    scale: float


@dataclass(frozen=True)
class CrossEntropy:
    """loss[t] = scale sum_n -log softmax(z[t,n])[label[t,n]]; targets are integer labels (T, N) in [0, C)."""

    reduction: str = "mean"

    def __post_init__(self):
        expect_reduction(self.reduction)

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are integer labels (T, N)."""
        expect(
            len(output_shape) == 1,
            "net",
            "outputs of shape (classes,) for CrossEntropy",
            f"{output_shape}",
        )
        expect(targets.dtype.kind in "iu", "y", "integer labels", lambda: f"dtype {targets.dtype}")
        expect(
            targets.shape == examples,
            "y",
            f"shape {examples}, a label for each example",
            f"{targets.shape}",
        )

    def extremes(self, targets):
        """What check_values has to know: the lowest and the highest label."""
        return [targets.min(), targets.max()]

    def check_values(self, output_shape, extremes):
        """Raise ArgumentError for a label that the outputs cannot name."""
        low, high = map(int, extremes)
        expect(
            low >= 0 and high < output_shape[0],
            "y",
            f"labels in 0..{output_shape[0] - 1}",
            f"a label {low if low < 0 else high}",
        )

    def scale(self, examples, classes):
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
    """What squared error leaves: e = z - target (T, N, D), and the scale."""

    e: np.ndarray
    scale: float


@dataclass(frozen=True)
class MSE:
    """loss[t] = factor scale sum_{n,d} (z - target)^2; targets have the outputs' shape (T, N, D).

    scale: "mean" 1 / (N D), "sum" 1, "sum/K" 1 / N (K = N shots of one regression). factor = 0.5 gives the half square.
    """

    reduction: str = "mean"
    factor: float = 1.0

    def __post_init__(self):
        expect_reduction(self.reduction)
        expect(self.factor > 0, "factor", "a number > 0", repr(self.factor))

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are real numbers of the outputs' shape."""
        wanted = (*examples, *output_shape)
        expect(
            len(output_shape) == 1,
            "net",
            "outputs of shape (D,) for MSE",
            lambda: f"{output_shape}",
        )
        expect(targets.dtype.kind in "fc", "y", "real numbers", lambda: f"dtype {targets.dtype}")
        expect(
            targets.shape == wanted,
            "y",
            lambda: f"shape {wanted}, as the outputs",
            lambda: f"{targets.shape}",
        )

    def extremes(self, targets):
        """Nothing: any real number is a target."""
        return []

    def check_values(self, output_shape, extremes):
        """Any real number is a target."""

    def scale(self, examples, outputs):
        return (
            self.factor
            * {"mean": 1 / (examples * outputs), "sum": 1.0, "sum/K": 1 / examples}[self.reduction]
        )

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
