"""Quadratic losses in place of a network: every method's answer has a closed form."""

from dataclasses import dataclass

import numpy as np

from refmaml import kernels as kernel_sets
from refmaml.errors import expect
from refmaml.model import Model

ASYMMETRY = 1e-5  # of max |A|: what is left of symmetry when A was computed in float32


@dataclass(frozen=True)
class QuadraticPrimal:
    """Loss, gradient and Hessian at w."""

    loss: np.ndarray
    grad: np.ndarray
    A: np.ndarray
    accuracy: None = None


class Quadratic(Model):
    """f(w; A, c) = 1/2 (w - c)' A (w - c): a model that methods use like a net.

    x holds the matrices A (T, P, P), symmetric; y holds the centres c (T, P).
    Raises ArgumentError for other shapes, or where A is not symmetric.
    """

    def __init__(self, num_params):
        expect(num_params >= 1, "num_params", "an integer >= 1", repr(num_params))
        self.num_params, self.kernels = num_params, kernel_sets.reference()
        self.blocks = [slice(0, num_params)]

    def init(self, seed=0, dtype=np.float64):
        """A standard normal start (P,)."""
        return np.random.default_rng(seed).standard_normal(self.num_params).astype(dtype)

    def mask(self, patterns):
        """(P,) of True, for patterns ('*',): a quadratic has no named parameters."""
        expect(
            tuple(patterns) == ("*",),
            "patterns",
            "('*',): a quadratic has no named parameters",
            repr(patterns),
        )
        return np.ones(self.num_params, bool)

    def activations(self, shape):
        """0: a quadratic has no layers."""
        return 0

    def primal(self, w, A, c, keep=True):
        """f (T,) and grad f = A (w - c) (T, P)."""
        P = self.num_params
        expect(A.shape[1:] == (P, P), "x", f"matrices of shape (tasks, {P}, {P})", f"{A.shape}")
        expect(c.shape == (len(A), P), "y", f"centres of shape ({len(A)}, {P})", f"{c.shape}")
        skew = abs(A - A.swapaxes(1, 2)).max()
        expect(
            not skew > ASYMMETRY * abs(A).max(),
            "x",
            "symmetric matrices A, as the gradient is A (w - c)",
            lambda: f"|A - A'| up to {skew:.2g}",
        )
        grad = np.einsum("tij,tj->ti", A, w - c)
        return QuadraticPrimal(np.einsum("ti,ti->t", w - c, grad) / 2, grad, A)

    def loss(self, w, A, c):
        """f for each task, (T,)."""
        return self.primal(w, A, c).loss

    def gradient(self, w, A, c):
        """grad f for each task, (T, P)."""
        return self.primal(w, A, c).grad

    def hvp(self, primal, v):
        """A v for each task; v (T or 1, P)."""
        return np.einsum("tij,tj->ti", primal.A, np.broadcast_to(v, primal.grad.shape))
