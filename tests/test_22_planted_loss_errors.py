"""Errors planted in the losses of loss_cases.py: the checks find each."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.oracles.layer_checks import loss_checks

K = kernels.reference()


def with_terms(wrong):
    """A change of what an elementwise loss returns for (z, t, (l, l', l''))."""

    def plant(loss):
        def terms(self, k, z, targets):
            return wrong(z, targets, *type(loss).terms(self, k, z, targets))

        return terms

    return "terms", plant


def with_backward(wrong):
    """A change of dz, from what is saved."""
    return (
        "backward",
        lambda loss: lambda self, k, saved: wrong(saved, type(loss).backward(self, k, saved)),
    )


def with_r_backward(wrong):
    """A change of rdz, from what is saved and rz."""
    return (
        "r_backward",
        lambda loss: (
            lambda self, k, saved, rz: wrong(saved, rz, type(loss).r_backward(self, k, saved, rz))
        ),
    )


def with_scale(factor):
    """Another factor in front of the sum, in the forward pass alone."""

    def plant(loss):
        def forward(self, k, z, targets):
            value, saved = type(loss).forward(self, k, z, targets)
            return factor * value, saved

        return forward

    return "forward", plant


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def halves(a):
    D = a.shape[2] // 2
    return a[:, :, :D], a[:, :, D:]


def joined(*parts):
    return np.concatenate(parts, axis=2)


WRONG = {
    rm.BCEWithLogits(pos_weight=2.0): {
        "pos_weight forgotten in the gradient": with_terms(
            lambda z, t, f, df, ddf: (f, sigmoid(z) - t, ddf)
        ),
        "pos_weight forgotten in the Hessian": with_terms(
            lambda z, t, f, df, ddf: (f, df, sigmoid(z) * sigmoid(-z))
        ),
        "times 1.001": with_scale(1.001),
        "gradient with the wrong sign": with_backward(lambda saved, dz: -dz),
        "no curvature": with_r_backward(lambda saved, rz, rdz: 0 * rdz),
    },
    rm.Huber(delta=0.5): {
        "a square everywhere": with_terms(lambda z, t, f, df, ddf: (f, z - t, ddf)),
        "a curvature everywhere": with_terms(lambda z, t, f, df, ddf: (f, df, 1 + 0 * df)),
        "delta forgotten in the slope": with_terms(
            lambda z, t, f, df, ddf: (f, np.where(abs((z - t).real) > 0.5, df / 0.5, df), ddf)
        ),
        "smooth L1, not divided by delta": with_scale(2.0),
        "the offset forgotten": with_terms(
            lambda z, t, f, df, ddf: (np.where(abs((z - t).real) > 0.5, f + 0.125, f), df, ddf)
        ),
    },
    rm.GaussianNLL(): {
        "the half forgotten": with_scale(2.0),
        "the variance for its logarithm": with_backward(
            lambda saved, dz: joined(halves(dz)[0], halves(dz)[1] / np.exp(-saved.inverse))
        ),
        "log-variance's gradient without the square": with_backward(
            lambda saved, dz: joined(halves(dz)[0], 0 * saved.u + saved.scale / 2)
        ),
        "no mixed term": with_r_backward(
            lambda saved, rz, rdz: joined(
                saved.scale * saved.inverse**2 * halves(rz)[0], halves(rdz)[1]
            )
        ),
        "the variance held fixed": with_r_backward(
            lambda saved, rz, rdz: joined(halves(rdz)[0], 0 * saved.u)
        ),
    },
    rm.BoundedGaussianNLL(floor=0.25): {
        "log of the variance for that of sigma": with_backward(
            lambda saved, dz: joined(
                halves(dz)[0], halves(dz)[1] + saved.scale * saved.s1 * saved.i
            )
        ),
        "softplus's slope missing": with_backward(
            lambda saved, dz: joined(halves(dz)[0], halves(dz)[1] / saved.s1)
        ),
        "the floor's factor missing": with_backward(
            lambda saved, dz: joined(halves(dz)[0], halves(dz)[1] / 0.75)
        ),
        "softplus without curvature": with_r_backward(
            lambda saved, rz, rdz: joined(
                halves(rdz)[0],
                halves(rdz)[1]
                - saved.scale * saved.s2 * (1 - saved.e**2) * saved.i * halves(rz)[1],
            )
        ),
        "sigma held fixed": with_r_backward(
            lambda saved, rz, rdz: joined(saved.scale * saved.i**2 * halves(rz)[0], halves(rdz)[1])
        ),
    },
    rm.WeightedCrossEntropy(label_smoothing=0.1, weight=(1, 2, 0.5, 3)): {
        "the mean without weights": with_scale(0.9),
        "smoothing forgotten": with_backward(
            lambda saved, dz: saved.total * saved.p - np.where(saved.q == saved.q.max(
                axis=2, keepdims=True), saved.total, 0)
        ),
        "weights forgotten in front of p": with_backward(
            lambda saved, dz: saved.total.mean() * saved.p - saved.q
        ),
        "p p' dropped": with_r_backward(lambda saved, rz, rdz: saved.total * saved.p * rz),
        "weights forgotten in the Hessian": with_r_backward(
            lambda saved, rz, rdz: rdz / saved.total / rz.shape[1]
        ),
    },
}  # fmt: skip
PLANTED = [(loss, name) for loss, errors in WRONG.items() for name in errors]


@pytest.mark.parametrize("loss,error", PLANTED, ids=str)
def test_an_error_planted_in_a_loss_is_caught(loss, error):
    assert all(c.passed for c in loss_checks(loss, K))
    name, plant = WRONG[loss][error]
    # The loops of the forward pass are found by the name of the class.
    kind = type(type(loss).__name__, (type(loss),), {name: plant(loss)})
    planted = kind(**vars(loss))
    assert any(not c.passed for c in loss_checks(planted, K))
