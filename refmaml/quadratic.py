"""Quadratic losses in place of a network: every method's answer is then known in closed form."""

from dataclasses import dataclass

import numpy as np

from refmaml import kernels as kernel_sets
from refmaml.errors import expect
from refmaml.nonfinite import refuse_non_finite


@dataclass(frozen=True)
class QuadraticPrimal:
    """Loss, gradient and Hessian at w."""

    loss: np.ndarray
    grad: np.ndarray
    A: np.ndarray
    accuracy: None = None


class Quadratic:
    """f(w; A, c) = 1/2 (w - c)' A (w - c): a model the methods can use like a net. x is A (T, P, P) symmetric, y is c (T, P)."""

    def __init__(self, num_params):
        expect(num_params >= 1, "num_params", "an integer >= 1", repr(num_params))
        self.num_params, self.kernels = num_params, kernel_sets.reference()
        self.blocks = [slice(0, num_params)]

    def init(self, seed=0, dtype=np.float64):
        """A standard normal start (P,)."""
        return np.random.default_rng(seed).standard_normal(self.num_params).astype(dtype)

    def mask(self, patterns):
        """Every parameter: a quadratic has one block and no names."""
        expect(
            tuple(patterns) == ("*",),
            "patterns",
            "('*',): a quadratic has no named parameters",
            repr(patterns),
        )
        return np.ones(self.num_params, bool)

    def adapt_mask(self, adapts, frozen=()):
        """(P,) of bools: what `adapts` selects, which is everything, and `frozen` does not."""
        return self.mask(adapts) & ~self.mask(frozen) if frozen else self.mask(adapts)

    def name_of(self, place):
        return ""

    def activations(self, shape):
        """None: a quadratic has no layers."""
        return 0

    def primal(self, w, A, c, keep=True):
        """f and grad f = A (w - c) for each task."""
        P = self.num_params
        expect(A.shape[1:] == (P, P), "x", f"matrices of shape (tasks, {P}, {P})", f"{A.shape}")
        expect(c.shape == (len(A), P), "y", f"centres of shape ({len(A)}, {P})", f"{c.shape}")
        grad = np.einsum("tij,tj->ti", A, w - c)
        return QuadraticPrimal(np.einsum("ti,ti->t", w - c, grad) / 2, grad, A)

    def loss(self, w, A, c):
        """f for each task, (T,)."""
        return self.primal(w, A, c).loss

    def gradient(self, w, A, c):
        """grad f for each task, (T, P)."""
        return self.primal(w, A, c).grad

    def hvp(self, primal, v):
        """A v."""
        return np.einsum("tij,tj->ti", primal.A, np.broadcast_to(v, primal.grad.shape))

    def require_finite(self, primal, w, x, stage):
        """Raise NonFiniteError naming the first task whose loss or gradient is not finite."""
        refuse_non_finite(primal.loss, f"{stage}: the loss")
        refuse_non_finite(primal.grad, f"{stage}: the gradient")
