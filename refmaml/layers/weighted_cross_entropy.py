"""Cross-entropy with label smoothing and class weights."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import is_number, set_fields
from refmaml.errors import expect
from refmaml.layers.elementwise_loss import expect_length, tuple_of_numbers, vector
from refmaml.layers.losses import CrossEntropy


class WeightedPrediction(NamedTuple):
    """Probabilities p and scaled target weights q (T, N, C), and sum_c q (T, N, 1)."""

    p: np.ndarray
    q: np.ndarray
    total: np.ndarray


@dataclass(frozen=True)
class WeightedCrossEntropy(CrossEntropy):
    """CrossEntropy with label smoothing and class weights, as PyTorch defines them.

    loss[t] = scale sum_{n,c} q[n,c] (-log p[n,c]), p = softmax(z), with the weights

        q[n,c] = w_c ((1 - e) [c = label_n] + e / C)

    With Q = sum_c q:  dz = scale (Q p - q), rdz = scale Q p (rz - <p, rz>). For e = 0
    and w = 1 the loss is CrossEntropy, which has kernels of its own.

    reduction        the scale: "mean" 1 / sum_n w[label_n], the weighted mean (1 / N
                     without weights); "sum" 1; "sum/K" C / N
    label_smoothing  e in [0, 1]
    weight           w, a sequence of C numbers >= 0, or None for 1. A task all of
                     whose labels have weight 0 has no mean: its loss is NaN
    Raises ArgumentError for other arguments, and labels as CrossEntropy does.
    PyTorch: torch.nn.CrossEntropyLoss. Source of smoothing: Szegedy et al. 2016,
    section 7.
    """

    label_smoothing: float = 0.0
    weight: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        e, weight = self.label_smoothing, self.weight
        right = is_number(e) and 0 <= e <= 1
        expect(right, "label_smoothing", "a number in [0, 1]", lambda: repr(e))
        if weight is not None:
            weight = tuple_of_numbers("weight", weight)
            expect(any(weight), "weight", "a weight > 0", lambda: repr(weight))
        set_fields(self, label_smoothing=float(e), weight=weight)

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are integer labels (T, N)."""
        super().check(output_shape, targets, examples)
        expect_length("weight", self.weight, output_shape[0])

    def target_weights(self, k, labels, C, dtype):
        """scale q (T, N, C); NaN for a label that names no class."""
        N, e = labels.shape[1], self.label_smoothing
        w = vector(k, (1.0,) * C if self.weight is None else self.weight, dtype)
        match = (labels[..., None] == k.xp.arange(C)).astype(dtype)
        match = match / match.sum(axis=-1, keepdims=True)  # by 1; 0 / 0 for such a label
        q = w * ((1 - e) * match + e / C)
        if self.reduction == "mean" and self.weight is not None:
            return q / (w * match).sum(axis=(1, 2))[:, None, None]
        return self.scale(N, C) * q

    def forward(self, k, z, labels):
        q = self.target_weights(k, labels, z.shape[2], z.real.dtype)
        shifted = z - z.real.max(axis=-1, keepdims=True)
        p = k.xp.exp(shifted)
        denominator = p.sum(axis=-1, keepdims=True)
        p /= denominator
        loss = (q * (k.xp.log(denominator) - shifted)).sum(axis=(1, 2))
        return loss, WeightedPrediction(p, q, q.sum(axis=-1, keepdims=True))

    def backward(self, k, saved):
        return saved.total * saved.p - saved.q

    def r_backward(self, k, saved, rz):
        p = saved.p
        return saved.total * p * (rz - (p * rz).sum(axis=-1, keepdims=True))
