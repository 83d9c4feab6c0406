"""Losses that are a sum over single outputs: binary cross-entropy and Huber's."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.arguments import check_positive_number, is_number, set_fields
from refmaml.errors import expect
from refmaml.layers.logistic import sigmoid, softplus
from refmaml.layers.real_targets import ElementwiseLoss


@dataclass(frozen=True)
class BCEWithLogits(ElementwiseLoss):
    """Binary cross-entropy of logits z (T, N, D) with targets t in [0, 1] (T, N, D).

    With s = sigmoid(z) and s(-z) = 1 - s:

        l   = (1 - t) log(1 + e^z) + p t log(1 + e^-z)
        l'  = (1 - t) s - p t s(-z)
        l'' = (1 - t + p t) s s(-z)

    For p = 1 that is the usual l' = s - t. No term overflows, and for t = 0 or 1 none
    cancels, whatever z is.

    reduction   as in MSE: "mean" 1 / (N D), "sum" 1, "sum/K" 1 / N
    pos_weight  p, the weight of the positive class: a number > 0, a sequence of D of
                them, or None for 1
    accuracy    the fraction of outputs on the side of their target: z > 0 where t > 1/2
    Raises ArgumentError for another reduction or pos_weight, and for targets outside
    [0, 1].
    PyTorch: torch.nn.BCEWithLogitsLoss.
    """

    pos_weight: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        p = self.pos_weight
        if p is None or is_number(p):
            p = None if p is None else check_positive_number("pos_weight", p)
        else:
            p = tuple_of_numbers("pos_weight", p, above=0)
        set_fields(self, pos_weight=p)

    def check(self, output_shape, targets, examples):
        """Raise ArgumentError unless `targets` are real and have the outputs' shape."""
        super().check(output_shape, targets, examples)
        expect_length("pos_weight", self.pos_weight, output_shape[0])

    def extremes(self, targets):
        """The lowest and the highest target, for check_values."""
        return [targets.real.min(), targets.real.max()]

    def check_values(self, output_shape, extremes):
        """Raise ArgumentError for a target outside [0, 1]."""
        low, high = map(float, extremes)
        expect(
            low >= 0 and high <= 1,
            "y",
            "targets in [0, 1] for BCEWithLogits",
            lambda: f"a target {high if low >= 0 else low}",
        )

    def nearest_targets(self, targets):
        """The targets with those outside [0, 1] moved to the nearest end."""
        return targets.clip(0, 1)

    def terms(self, k, z, targets):
        xp, t = k.xp, targets.real
        # Targets that were not checked make NaN where they are outside.
        targets = xp.where((t >= 0) & (t <= 1), targets, np.nan)
        positive, negative = targets * self.positive_weight(k, targets.dtype), 1 - targets
        s, opposite = sigmoid(xp, z), sigmoid(xp, -z)
        loss = negative * softplus(xp, z) + positive * softplus(xp, -z)
        return loss, negative * s - positive * opposite, (negative + positive) * s * opposite

    def positive_weight(self, k, dtype):
        """p as a number or as (D,)."""
        if isinstance(self.pos_weight, tuple):
            return vector(k, self.pos_weight, dtype)
        return 1 if self.pos_weight is None else self.pos_weight

    def accuracy(self, z, targets):
        """The fraction of outputs on the side of their target, (T,)."""
        return ((z.real > 0) == (targets.real > 0.5)).mean(axis=(1, 2))

    def random_targets(self, rng, shape):
        """Targets for outputs of `shape` (T, N, D), to check the loss with."""
        return rng.uniform(0, 1, shape)


@dataclass(frozen=True)
class Huber(ElementwiseLoss):
    """Huber's loss of e = z - target, with targets of the outputs' shape (T, N, D).

        |e| <= delta     l = e^2 / 2                    l' = e             l'' = 1
        e > delta        l = delta (e - delta / 2)      l' = delta         l'' = 0
        e < -delta       l = delta (-e - delta / 2)     l' = -delta        l'' = 0

    l' is continuous; l'' jumps at |e| = delta, where it is 1.

    reduction  as in MSE: "mean" 1 / (N D), "sum" 1, "sum/K" 1 / N
    delta      a number > 0
    Raises ArgumentError for another reduction or delta.
    PyTorch: torch.nn.HuberLoss. Source: Huber 1964.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        set_fields(self, delta=check_positive_number("delta", self.delta))

    def terms(self, k, z, targets):
        xp, delta, e = k.xp, self.delta, z - targets
        above, below = e.real > delta, e.real < -delta
        outside = above | below
        slope = xp.where(above, delta, xp.where(below, -delta, e))
        line = delta * (xp.where(below, -e, e) - delta / 2)
        return xp.where(outside, line, e * e / 2), slope, (~outside).astype(e.real.dtype)


# ---- weights of classes --------------------------------------------------------------


def tuple_of_numbers(argument, values, above=None):
    """The values as a tuple of Python floats >= 0, or > `above`.

    Raises ArgumentError for anything else.
    """
    wanted = f"a sequence of finite numbers {'>= 0' if above is None else f'> {above}'}"
    iterable = hasattr(values, "__iter__") and not isinstance(values, str | bytes | dict)
    expect(iterable, argument, wanted, lambda: repr(values))
    numbers = tuple(values)
    right = (is_number(v) and (v >= 0 if above is None else v > above) for v in numbers)
    expect(len(numbers) > 0 and all(right), argument, wanted, lambda: repr(values))
    return tuple(map(float, numbers))


def expect_length(argument, values, outputs):
    """Raise ArgumentError unless a tuple of values has one for each of D outputs."""
    expect(
        not isinstance(values, tuple) or len(values) == outputs,
        argument,
        f"{outputs} numbers, one for each output",
        lambda: f"{len(values)}",
    )


def vector(k, values, dtype):
    """Python's numbers as an array (D,), written entry by entry: nothing is copied."""
    out = k.empty((len(values),), dtype)
    for i, value in enumerate(values):
        out[i] = value
    return out
