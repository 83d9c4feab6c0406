"""Batch-norm whose statistics are over too much: over all tasks, or over a task's
support and query set together.
"""

from typing import Any, NamedTuple

import numpy as np


class Saved(NamedTuple):
    """What the loss saved, and the shape of all outputs."""

    inner: Any
    shape: tuple


class FirstExamples:
    """A loss over the first n examples; the others take part in batch-norm alone."""

    def __init__(self, loss, n):
        self.loss, self.n = loss, n

    def check(self, output_shape, targets, examples):
        """As the loss itself."""
        self.loss.check(output_shape, targets, examples)

    def extremes(self, targets):
        """As the loss itself."""
        return self.loss.extremes(targets)

    def check_values(self, output_shape, extremes):
        """As the loss itself."""
        self.loss.check_values(output_shape, extremes)

    def first(self, a):
        """a of the first n examples."""
        return np.ascontiguousarray(a[:, : self.n])

    def padded(self, a, shape):
        """a with zeros for the other examples."""
        out = np.zeros(shape, a.dtype)
        out[:, : self.n] = a
        return out

    def forward(self, k, z, targets):
        """The loss of the first examples."""
        value, saved = self.loss.forward(k, self.first(z), self.first(targets))
        return value, Saved(saved, z.shape)

    def backward(self, k, saved):
        """Its adjoint, 0 for the others."""
        return self.padded(self.loss.backward(k, saved.inner), saved.shape)

    def r_backward(self, k, saved, rz):
        """Its adjoint's tangent, 0 for the others."""
        return self.padded(self.loss.r_backward(k, saved.inner, self.first(rz)), saved.shape)

    def accuracy(self, z, targets):
        """That of the first examples."""
        return self.loss.accuracy(self.first(z), self.first(targets))


def over_all_tasks(right):
    """Batch-norm with one mean and variance of each channel for all tasks.

    gamma and beta stay those of each task: the right kernels normalise all examples as
    one task with gamma 1 and beta 0.
    """

    def merged(a):
        return np.ascontiguousarray(a).reshape(1, -1, *a.shape[2:])

    def units(x):
        return np.ones((1, x.shape[2]), x.dtype), np.zeros((1, x.shape[2]), x.dtype)

    def across(a):
        return a[:, None, :, None]

    def forward(y, xh, s, x, gamma, beta, eps):
        one, zero = units(x)
        h, normal, scale = np.empty_like(merged(x)), np.empty_like(merged(x)), np.empty_like(one)
        right.batch_norm_forward(h, normal, scale, merged(x), one, zero, eps)
        xh[...], s[...] = normal.reshape(x.shape), scale
        y[...] = across(gamma) * xh + across(beta)

    def backward(dx, dgamma, dbeta, dy, xh, s, gamma):
        dgamma[...], dbeta[...] = (dy * xh).sum(axis=(1, 3)), dy.sum(axis=(1, 3))
        d, (one, zero) = merged(across(gamma) * dy), units(dy)
        out = np.empty_like(d)
        right.batch_norm_backward(out, 0 * zero, 0 * zero, d, merged(xh), s[:1], one)
        dx[...] = out.reshape(dx.shape)

    def r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
        one, zero = units(rx)
        out, normal, scale = np.empty_like(merged(rx)), np.empty_like(merged(rx)), 0 * one
        right.batch_norm_r_forward(
            out, normal, scale, merged(rx), merged(xh), s[:1], one, zero, zero
        )
        rxh[...], rs[...] = normal.reshape(rx.shape), scale
        ry[...] = across(rgamma) * xh + across(gamma) * rxh + across(rbeta)

    def r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
        rdgamma[...], rdbeta[...] = (rdy * xh + dy * rxh).sum(axis=(1, 3)), rdy.sum(axis=(1, 3))
        d, (one, zero) = merged(across(gamma) * dy), units(dy)
        rd = merged(across(gamma) * rdy + across(rgamma) * dy)
        out = np.empty_like(d)
        right.batch_norm_r_backward(
            out, 0 * zero, 0 * zero, d, rd, merged(xh), s[:1], merged(rxh), rs[:1], one, zero
        )
        rdx[...] = out.reshape(rdx.shape)

    return right.replace(
        batch_norm_forward=forward,
        batch_norm_backward=backward,
        batch_norm_r_forward=r_forward,
        batch_norm_r_backward=r_backward,
    )
