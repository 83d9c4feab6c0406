"""The reference kernels: adjoint identities, precision, strides, non-finite numbers."""

import numpy as np
import pytest

from refmaml import kernels
from refmaml.oracles.tolerance import relative_error, tolerance

K = kernels.reference()
RNG = np.random.default_rng(0)
GEOMETRIES = [
    ((3, 3), (1, 1), ((0, 0), (0, 0))),
    ((3, 3), (2, 2), ((0, 1), (0, 1))),
    ((2, 3), (1, 2), ((1, 0), (2, 1))),
]


def conv_arrays(
    kernel, stride, padding, dtype=np.float64, T=2, N=3, C=2, O=4, H=6, W=7, shared=False
):
    (kH, kW), (sH, sW), ((t, b), (l, r)) = kernel, stride, padding
    out = (H + t + b - kH) // sH + 1, (W + l + r - kW) // sW + 1
    x = RNG.standard_normal((T, N, C, H, W)).astype(dtype)
    w = RNG.standard_normal((1 if shared else T, O, C, kH, kW)).astype(dtype)
    return x, w, RNG.standard_normal((T, N, O, *out)).astype(dtype)


def conv(x, w, dy, stride, padding):
    """The three products, into poisoned outputs."""
    y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
    dw = np.full((len(x), *w.shape[1:]), np.nan, dy.dtype)
    K.conv2d_forward(y, x, w, stride, padding)
    K.conv2d_backward_x(dx, dy, w, stride, padding)
    K.conv2d_backward_w(dw, x, dy, stride, padding)
    return y, dx, dw


@pytest.mark.parametrize("kernel,stride,padding", GEOMETRIES)
@pytest.mark.parametrize("shared", [False, True])
def test_the_two_transposes_of_a_convolution_satisfy_the_adjoint_identity(
    kernel, stride, padding, shared
):
    x, w, dy = conv_arrays(kernel, stride, padding, shared=shared)
    y, dx, dw = conv(x, w, dy, stride, padding)
    inner = np.sum(dy * y)
    limit = tolerance(float, dy.size) * np.sqrt(np.sum(dy**2) * np.sum(y**2)) / abs(inner)
    assert relative_error(np.sum(dx * x), inner) <= limit
    assert relative_error(np.sum(dw * w), inner) <= limit


def test_a_convolution_in_float32_stays_in_float32_and_agrees_with_float64():
    x, w, dy = conv_arrays(*GEOMETRIES[1])
    for single, exact in zip(
        conv(*(a.astype("f") for a in (x, w, dy)), *GEOMETRIES[1][1:]),
        conv(x, w, dy, *GEOMETRIES[1][1:]),
        strict=True,
    ):
        assert single.dtype == np.float32
        assert relative_error(single, exact) <= tolerance(np.float32, dy.size)


@pytest.mark.parametrize("layout", ["fortran", "reversed", "every other", "broadcast"])
def test_kernels_take_arrays_of_any_strides(layout):
    x, w, dy = conv_arrays(*GEOMETRIES[1])
    strange = {
        "fortran": np.asfortranarray,
        "reversed": lambda a: a[::-1].copy()[::-1],
        "every other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    }[layout]
    plain = (np.ascontiguousarray(strange(a)) for a in (x, w, dy))
    for a, b in zip(
        conv(*map(strange, (x, w, dy)), *GEOMETRIES[1][1:]),
        conv(*plain, *GEOMETRIES[1][1:]),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_kernels_do_not_write_to_their_inputs():
    x, w, dy = conv_arrays(*GEOMETRIES[0])
    for a in (x, w, dy):
        a.flags.writeable = False
    conv(x, w, dy, *GEOMETRIES[0][1:])


@pytest.mark.parametrize("function", ["relu", "leaky", "softplus", "tanh"])
def test_activations_propagate_nan_and_are_finite_for_huge_inputs(function):
    from refmaml.kernels.activation import functions

    f = {"relu": functions.leaky(0), "leaky": functions.leaky(0.1)}.get(function) or getattr(
        functions, function
    )
    x = np.array([np.nan, -1e4, 1e4, -700.0, 700.0, 0.0])
    with np.errstate(under="ignore"):
        y = np.empty_like(x)
        K.activation_forward(y, x, f)
        dx = np.empty_like(x)
        K.activation_backward(dx, np.ones_like(x), x, f)
    assert np.isnan(y[0]) and np.isfinite(y[1:]).all() and np.isfinite(dx[1:]).all()
    assert dx[2] == (0 if function == "tanh" else 1)


def test_of_equal_maxima_the_first_wins_and_nan_wins_over_every_number():
    x = np.array([[1.0, 3, 3, 2], [np.nan, 9, 0, 0]]).reshape(2, 1, 1, 2, 2)
    y, winner = np.empty((2, 1, 1, 1, 1)), np.empty((2, 1, 1, 1, 1), np.int16)
    K.max_pool2d_forward(y, winner, x, (2, 2), (2, 2))
    assert winner.ravel().tolist() == [1, 0] and y[0] == 3 and np.isnan(y[1])


def test_gradients_of_overlapping_pooling_windows_are_added():
    x = np.array([[1.0, 5, 2]]).reshape(1, 1, 1, 1, 3)
    y, winner, dx = np.empty((1, 1, 1, 1, 2)), np.empty((1, 1, 1, 1, 2), np.int16), np.empty_like(x)
    K.max_pool2d_forward(y, winner, x, (1, 2), (1, 1))
    K.max_pool2d_backward(dx, winner, np.array([10.0, 1.0]).reshape(y.shape), (1, 2), (1, 1))
    assert dx.ravel().tolist() == [0, 11, 0]


@pytest.mark.parametrize("size", [1.0, 1e4, 1e308])
def test_cross_entropy_is_finite_for_any_finite_logits_and_its_gradient_sums_to_zero(size):
    z = size * np.array([[[1.0, -1, 0.5], [0, 0, 0]]])
    loss, p, dz = np.empty(1), np.empty_like(z), np.empty_like(z)
    with np.errstate(over="ignore", under="ignore"):
        K.cross_entropy_forward(loss, p, z / 2, np.array([[0, 2]]), 0.5)
    K.cross_entropy_backward(dz, p, np.array([[0, 2]]), 0.5)
    assert np.isfinite(loss).all()
    assert np.abs(dz.sum(axis=-1)).max() <= np.finfo(float).eps * z.shape[-1]


@pytest.mark.parametrize("offset,spread", [(0, 1e-20), (0, 1e20), (1e6, 1.0)])
def test_batch_norm_is_exact_to_rounding_at_any_scale_as_it_centres_twice(offset, spread):
    from fractions import Fraction
    from math import fsum, sqrt

    x = offset + spread * RNG.standard_normal((1, 5, 1, 4))
    y, xh, s = np.empty_like(x), np.empty_like(x), np.empty((1, 1))
    eps = (1e-3 * spread) ** 2
    K.batch_norm_forward(y, xh, s, x, np.ones((1, 1)), np.zeros((1, 1)), eps)
    values = list(map(Fraction, x.ravel().tolist()))
    centred = [float(v - sum(values) / len(values)) for v in values]
    exact = [c / sqrt(fsum(c * c for c in centred) / len(centred) + eps) for c in centred]
    assert relative_error(y.ravel(), exact) <= tolerance(float, x.size)


def test_a_constant_channel_is_normalised_to_zero_not_to_nan():
    x = np.full((1, 3, 1, 2), 7.0)
    y, xh, s = np.empty_like(x), np.empty_like(x), np.empty((1, 1))
    K.batch_norm_forward(y, xh, s, x, np.ones((1, 1)), np.zeros((1, 1)), 1e-5)
    assert (y == 0).all() and np.isfinite(s).all()
