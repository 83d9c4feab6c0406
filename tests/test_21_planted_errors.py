"""Errors planted in every layer and loss, one at a time: the ladder must find each."""

from dataclasses import fields

import numpy as np
import pytest

from refmaml import kernels
from refmaml.oracles import cases
from refmaml.oracles.layer_checks import layer_checks, loss_checks

K = kernels.reference()


# ---- errors in a pass: a subclass of the layer with one wrong pass


def with_wrong_pass(layer, **passes):
    """The same layer with some of its passes replaced."""
    kind = type(layer).__name__
    return type(kind, (type(layer),), passes)(
        **{f.name: getattr(layer, f.name) for f in fields(layer)}
    )


def result_times(layer, name, place, factor):
    """`layer` with the result of one pass multiplied.

    place: the index in a tuple of results, None for a single result.
    """

    def wrong_pass(self, *args, **kwargs):
        out = getattr(super(type(self), self), name)(*args, **kwargs)
        if place is None:
            return None if out is None else out * factor
        return tuple(o * factor if i == place else o for i, o in enumerate(out))

    return with_wrong_pass(layer, **{name: wrong_pass})


def filled_times(layer, name, factor):
    """`layer` with the parameter gradients that a pass fills in multiplied."""

    def wrong_pass(self, k, dw, *args, **kwargs):
        out = getattr(super(type(self), self), name)(k, dw, *args, **kwargs)
        for a in dw.values():
            a *= factor
        return out

    return with_wrong_pass(layer, **{name: wrong_pass})


def without(layer, name, place):
    """`layer` whose pass gets zeros for one argument: all its terms are dropped."""

    def wrong_pass(self, *args, **kwargs):
        args, a = list(args), args[place]
        args[place] = (
            {k: 0 * v for k, v in a.items()}
            if isinstance(a, dict)
            else None
            if a is None
            else 0 * a
        )
        return getattr(super(type(self), self), name)(*args, **kwargs)

    return with_wrong_pass(layer, **{name: wrong_pass})


# Arguments by position: r_forward(k, w, rw, saved, rx);
# r_backward(k, rdw, w, rw, saved, rsaved, dy, rdy).
ANYWHERE = {
    "y times 1.001": lambda layer: result_times(layer, "forward", 0, 1.001),
    "dx with the wrong sign": lambda layer: result_times(layer, "backward", None, -1),
    "dx times 1.001": lambda layer: result_times(layer, "backward", None, 1.001),
    "ry times 1.001": lambda layer: result_times(layer, "r_forward", 0, 1.001),
    "ry without rx": lambda layer: without(layer, "r_forward", 4),
    "rdx times 1.001": lambda layer: result_times(layer, "r_backward", None, 1.001),
    "rdx with the wrong sign": lambda layer: result_times(layer, "r_backward", None, -1),
    "r_backward without rdy": lambda layer: without(layer, "r_backward", 7),
}
WITH_PARAMETERS = {
    "dw times 1.001": lambda layer: filled_times(layer, "backward", 1.001),
    "dw with the wrong sign": lambda layer: filled_times(layer, "backward", -1),
    "rdw times 1.001": lambda layer: filled_times(layer, "r_backward", 1.001),
    "ry without rw": lambda layer: without(layer, "r_forward", 2),
}
WITH_CURVATURE = {"r_backward without dy": lambda layer: without(layer, "r_backward", 6)}
CURVED = ("Conv2d", "Linear", "BatchNorm2d", "Tanh", "Softplus", "FiLM")


def errors_of(case):
    """The errors that are errors in this layer."""
    errors = dict(ANYWHERE)
    if case.layer.shapes():
        errors.update(WITH_PARAMETERS)
    if type(case.layer).__name__ in CURVED:
        errors.update(WITH_CURVATURE)
    return errors


PASS_ERRORS = [(case, name) for case in cases.LAYERS for name in errors_of(case)]


@pytest.mark.parametrize(
    "case,name", PASS_ERRORS, ids=[f"{case}-{name}" for case, name in PASS_ERRORS]
)
def test_an_error_planted_in_a_pass_is_caught(case, name):
    planted = case._replace(layer=errors_of(case)[name](case.layer))
    assert any(not c.passed for c in layer_checks(planted, K))


def test_every_layer_has_at_least_five_planted_errors():
    assert min(len(errors_of(case)) for case in cases.LAYERS) >= 5


# ---- errors in a kernel: frequent mistakes in each operation -------------------------


def flipped(w):
    return w[..., ::-1, ::-1]


def shifted(a):
    return np.roll(a, 1, axis=-1)


def over(a):
    """The mean over examples and positions, kept for broadcasting."""
    return a.mean(axis=(1, 3), keepdims=True)


def unbiased_variance(y, xh, s, x, gamma, beta, eps):
    M = x.shape[1] * x.shape[3]
    K.batch_norm_forward(y, xh, s, x, gamma, beta, eps)
    s[...] = 1 / np.sqrt((1 / s**2 - eps) * M / (M - 1) + eps)
    xh[...] = s[:, None, :, None] * (x - over(x))
    y[...] = gamma[:, None, :, None] * xh + beta[:, None, :, None]


def frozen_statistics(dx, dgamma, dbeta, dy, xh, s, gamma):
    K.batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma)
    dx[...] = (s * gamma)[:, None, :, None] * dy


def without_the_projection(dx, dgamma, dbeta, dy, xh, s, gamma):
    K.batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma)
    dxh = gamma[:, None, :, None] * dy
    dx[...] = s[:, None, :, None] * (dxh - over(dxh))


def without_rs(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    K.batch_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, 0 * rs, gamma, rgamma)


def without_the_tangent_of_the_slope(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    K.batch_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma)
    rdx += s[:, None, :, None] * xh * over(gamma[:, None, :, None] * dy * rxh)


KERNEL_ERRORS = {
    ("Conv2d", "convolution instead of correlation"): {
        "conv2d_forward": lambda y, x, w, *g: K.conv2d_forward(y, x, flipped(w), *g)
    },
    ("Conv2d", "dx with the kernel not turned round"): {
        "conv2d_backward_x": lambda dx, dy, w, *g: K.conv2d_backward_x(dx, dy, flipped(w), *g)
    },
    ("Conv2d", "a transposed kernel"): {
        "conv2d_backward_w": lambda dw, x, dy, *g: (
            K.conv2d_backward_w(dw, x, dy, *g),
            dw.__setitem__(..., flipped(dw)),
        )
    },
    ("Conv2d", "a pad off by one in forward"): {
        "conv2d_forward": lambda y, x, w, *g: K.conv2d_forward(y, shifted(x), w, *g)
    },
    ("Conv2d", "a pad off by one in dw"): {
        "conv2d_backward_w": lambda dw, x, dy, *g: K.conv2d_backward_w(dw, shifted(x), dy, *g)
    },
    ("Conv2d", "weights of the first task for all"): {
        "conv2d_backward_x": lambda dx, dy, w, *g: K.conv2d_backward_x(dx, dy, w[:1], *g)
    },
    ("Linear", "x and dy of different tasks"): {
        "linear_backward_w": lambda dw, x, dy: K.linear_backward_w(dw, x[::-1], dy)
    },
    ("BatchNorm2d", "unbiased variance"): {"batch_norm_forward": unbiased_variance},
    ("BatchNorm2d", "statistics taken as constants"): {"batch_norm_backward": frozen_statistics},
    ("BatchNorm2d", "no projection along xh"): {"batch_norm_backward": without_the_projection},
    ("BatchNorm2d", "rs dropped"): {"batch_norm_r_backward": without_rs},
    ("BatchNorm2d", "<dxh rxh> dropped"): {
        "batch_norm_r_backward": without_the_tangent_of_the_slope
    },
    ("MaxPool2d", "gradient to the loser"): {
        "max_pool2d_backward": lambda dx, winner, dy, window, stride: K.max_pool2d_backward(
            dx, (winner + 1) % (window[0] * window[1]), dy, window, stride
        )
    },
    ("MaxPool2d", "tangent pooled anew"): {
        "max_pool2d_gather": lambda ry, winner, rx, *g: K.max_pool2d_forward(
            ry, np.empty_like(winner), rx, *g
        )
    },
    ("AvgPool2d", "windows one column off"): {
        "avg_pool2d_backward": lambda dx, dy, *g: (
            K.avg_pool2d_backward(dx, dy, *g),
            dx.__setitem__(..., shifted(dx)),
        )
    },
    ("Tanh", "second derivative dropped"): {
        "activation_r_backward": lambda rdx, dy, rdy, x, rx, f: K.activation_r_backward(
            rdx, dy, rdy, x, rx, f._replace(ddf=None)
        )
    },
    ("FiLM", "dbeta dropped"): {
        "film_backward": lambda dx, dgamma, dbeta, *a: (
            K.film_backward(dx, dgamma, dbeta, *a),
            dbeta.__setitem__(..., 0),
        )
    },
}


@pytest.mark.parametrize("where", KERNEL_ERRORS, ids="-".join)
def test_an_error_planted_in_a_kernel_is_caught(where):
    # Exact zeros and single pixels can hide a shift or a flip, so an error must show in
    # one variant of its layer, not in all.
    planted = K.replace("planted", **KERNEL_ERRORS[where])
    affected = [case for case in cases.LAYERS if type(case.layer).__name__ == where[0]]
    assert any(not c.passed for case in affected for c in layer_checks(case, planted))


LOSS_ERRORS = {
    ("CrossEntropy", "the label's one forgotten"): {
        "cross_entropy_backward": lambda dz, p, labels, scale: dz.__setitem__(..., scale * p)
    },
    ("CrossEntropy", "probabilities taken as constants"): {
        "cross_entropy_r_backward": lambda rdz, p, rz, scale: rdz.__setitem__(..., 0)
    },
    ("CrossEntropy", "p p' dropped"): {
        "cross_entropy_r_backward": lambda rdz, p, rz, scale: rdz.__setitem__(..., scale * p * rz)
    },
    ("CrossEntropy", "loss times 1.001"): {
        "cross_entropy_forward": lambda loss, p, z, y, scale: K.cross_entropy_forward(
            loss, p, z, y, 1.001 * scale
        )
    },
    ("CrossEntropy", "gradient with the wrong sign"): {
        "cross_entropy_backward": lambda dz, p, y, scale: K.cross_entropy_backward(dz, p, y, -scale)
    },
    ("MSE", "the 2 forgotten"): {
        "squared_error_backward": lambda dz, e, scale: dz.__setitem__(..., scale * e)
    },
    ("MSE", "the 2 forgotten in the Hessian"): {
        "squared_error_r_backward": lambda rdz, rz, scale: rdz.__setitem__(..., scale * rz)
    },
    ("MSE", "half the sum"): {
        "squared_error_forward": lambda loss, e, z, t, scale: K.squared_error_forward(
            loss, e, z, t, scale / 2
        )
    },
    ("MSE", "target minus output"): {
        "squared_error_backward": lambda dz, e, scale: K.squared_error_backward(dz, -e, scale)
    },
    ("MSE", "Hessian times 1.001"): {
        "squared_error_r_backward": lambda rdz, rz, scale: K.squared_error_r_backward(
            rdz, rz, 1.001 * scale
        )
    },
}


@pytest.mark.parametrize("where", LOSS_ERRORS, ids="-".join)
def test_an_error_planted_in_a_loss_is_caught(where):
    planted = K.replace("planted", **LOSS_ERRORS[where])
    for loss in cases.LOSSES:
        if type(loss).__name__ == where[0]:
            assert any(not c.passed for c in loss_checks(loss, planted))
